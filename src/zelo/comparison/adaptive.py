"""Samplers that choose the next pairs from the answers so far, in rounds.

A round is a batch that judges can be asked at once. The first is of random cycles, so that the
graph is connected; each of the others is chosen from the fit to all answers before it, until the
budget is spent or the query needs no more. No pair is asked twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from zelo.comparison.graphs import Cycles
from zelo.comparison.sampler import BaseSampler, Edges
from zelo.config import option
from zelo.rating.comparisons import Comparisons, Reals
from zelo.rating.likelihood import LIKELIHOODS
from zelo.rating.solver import covariance, dispersion, fit


class AdaptiveSampler(BaseSampler):
    """What samplers that work in rounds have in common: budget, rounds and when to stop."""

    comparisons: int = option(240, "pairs per query, all rounds together", ge=1)
    random_share: float = option(
        0.85,
        "at most this share of the budget goes to the random cycles of the first round",
        ge=0,
        le=1,
    )
    rounds: int = option(5, "rounds, the first included", ge=2)
    stop_stderr: float = option(
        0.0, "no more once no Elo of the top has a larger standard error; 0: never", ge=0
    )
    stop_stable: bool = option(False, "no more once a round has not changed the set of the top")
    top: int = option(10, "documents that the two rules look at, and that matter most", ge=1)
    model: str = option(
        "thurstone", "probability model of a comparison", pattern="^(thurstone|bradley_terry)$"
    )
    prior: float = option(0.05, "precision of the Gaussian prior on an Elo", gt=0)

    @property
    def max_rounds(self) -> int:
        """The option `rounds`."""
        return self.rounds

    def edges(self, n: int, rng: np.random.Generator) -> Edges:
        """Random cycles: as many as `random_share` pays for, and at least one."""
        cycles = max(1, int(self.random_share * self.comparisons) // max(n, 1))
        return Cycles(cycles=cycles).edges(n, rng)[: self.comparisons]

    def next_edges(
        self, n: int, edges: Edges, p: Reals, rounds_left: int, rng: np.random.Generator
    ) -> Edges:
        """The next pairs: an equal share of what is left of the budget in every round."""
        pairs_left = self.comparisons_at_most(n, 1) - len(edges)
        if pairs_left <= 0:
            return edges[:0]
        number = -(-pairs_left // rounds_left)
        estimate = estimate_query(n, edges, p, self.model, self.prior)
        if self.stop_stderr and self._sure(estimate):
            return edges[:0]
        if self.stop_stable and rounds_left < self.rounds - 1:
            before = estimate_query(n, edges[:-number], p[:-number], self.model, self.prior)
            if set(estimate.best(self.top)) == set(before.best(self.top)):
                return edges[:0]
        return self.choose(estimate, number, rng)

    def comparisons_at_most(self, n: int, queries: int) -> int:
        """The budget of each query, or all of its pairs where these are fewer."""
        return queries * min(self.comparisons, n * (n - 1) // 2)

    def choose(self, estimate: QueryEstimate, number: int, rng: np.random.Generator) -> Edges:
        """`number` pairs that have not been asked."""
        raise NotImplementedError

    def _sure(self, estimate: QueryEstimate) -> bool:
        errors = np.sqrt(estimate.covariance.diagonal() * estimate.dispersion)
        return bool(errors[estimate.best(self.top)].max() <= self.stop_stderr)


@dataclass
class QueryEstimate:
    """What is known of one query: Elos, their covariance, pairs not yet asked."""

    elo: Reals  # (n,)
    covariance: Reals  # (n, n)
    dispersion: float  # of the answers about the fit; 1: coin flips
    unasked: NDArray[np.bool_]  # (n, n), upper triangle

    def best(self, k: int) -> NDArray[np.int64]:
        """The k documents of highest Elo, best first."""
        return np.argsort(-self.elo, kind="stable")[:k]


def estimate_query(n: int, edges: Edges, p: Reals, model: str, prior: float) -> QueryEstimate:
    """Fit one query of `n` documents to the answers `p` (m,) on `edges` (m, 2); NaN: none."""
    answered = ~np.isnan(p)
    i, j = edges[answered].T
    comparisons = Comparisons(np.zeros(len(i), np.int64), i, j, p[answered], sizes=[n])
    elo = fit(comparisons, model, prior, threads=1).elo
    unasked = np.triu(np.ones((n, n), bool), k=1)
    low, high = np.sort(edges, axis=1).T
    unasked[low, high] = False
    # As if ten answers more had been coin flips: few comparisons fit too well by chance.
    spare = max(len(i) - n + int(comparisons.components[0]), 0)
    spread = np.nan_to_num(float(dispersion(comparisons, elo, model)[0]), nan=1.0)
    return QueryEstimate(
        elo,
        covariance(comparisons, elo, 0, model, prior),
        float((spare * spread + 10) / (spare + 10)),
        unasked,
    )


class Closest(AdaptiveSampler):
    """`sampler=closest`: the pairs whose Elos differ least so far (the paper's live method)."""

    random_share: float = option(
        0.0,
        "at most this share of the budget goes to the random cycles of the first round",
        ge=0,
        le=1,
    )

    def choose(self, estimate: QueryEstimate, number: int, rng: np.random.Generator) -> Edges:
        """Pairs of smallest |e_i − e_j|, equal ones in random order."""
        pairs = np.argwhere(estimate.unasked)
        pairs = pairs[rng.permutation(len(pairs))]
        gap = np.abs(estimate.elo[pairs[:, 0]] - estimate.elo[pairs[:, 1]])
        return pairs[np.argsort(gap, kind="stable")[:number]].astype(np.int64)


class Informative(AdaptiveSampler):
    """`sampler=informative`: the pairs that are expected to tell most about the top documents.

    A comparison of i and j has Fisher information `I` about `e_i − e_j`, known from the Elos so
    far, and changes the covariance C of the Elos to `C − I (Cu)(Cu)ᵀ / (1 + I uᵀCu)`,
    `u = 1_i − 1_j`. Pairs are taken one after another so that `Σ_a w_a Var(e_a)` falls most
    (A-optimal design), C being updated after each. `w_a` is the probability that document a is
    among the `top`, plus `floor` for all, so that no document is given up for good.

    Most of the budget is spent at random, and each pair is the best of `pool` random ones: the best
    of all would nearly always be two close documents of the top, and where judges do not follow the
    model to the letter (none does), Elos that hang on close pairs are not those of the dense
    matrix; see experiments/sampling.
    """

    pool: int = option(15, "random pairs that each pair is the best of", ge=1)
    floor: float = option(0.02, "weight of a document that is surely not among the top", ge=0)

    def choose(self, estimate: QueryEstimate, number: int, rng: np.random.Generator) -> Edges:
        """Greedy A-optimal pairs, each among its own random pool."""
        c, weight = estimate.covariance.copy(), self.floor + chance_of_top(estimate, self.top)
        pairs = np.argwhere(estimate.unasked)
        chosen = []
        for _ in range(number):
            pool = rng.choice(len(pairs), min(self.pool, len(pairs)), replace=False)
            i, j = pairs[pool].T
            columns = c[:, i] - c[:, j]
            spread = columns[i, np.arange(len(pool))] - columns[j, np.arange(len(pool))]
            information = expected_information(estimate.elo[i] - estimate.elo[j], self.model)
            gain = information * (weight @ columns**2) / (1 + information * spread)
            best = int(gain.argmax())
            chosen.append(pairs[pool[best]])
            pairs = np.delete(pairs, pool[best], axis=0)
            column = columns[:, best]
            c -= np.outer(column, column) * (
                information[best] / (1 + information[best] * spread[best])
            )
        return np.array(chosen, dtype=np.int64).reshape(-1, 2)


def expected_information(d: Reals, model: str) -> Reals:
    """Fisher information about the difference `d` of one yes-or-no answer, `P'² / (P (1 − P))`."""
    likelihood: Callable[[Reals, Reals], tuple[Reals, Reals, Reals]] = LIKELIHOODS[model]
    ones = np.ones_like(d)
    # The slope of −log P is −P'/P, that of −log (1 − P) is P'/(1 − P).
    return -likelihood(d, ones)[1] * likelihood(d, 0 * ones)[1]


def chance_of_top(estimate: QueryEstimate, top: int) -> Reals:
    """Probability (n,) of each document to be among the `top`, errors taken as independent.

    The border lies midway between the Elos of places `top` and `top + 1`.
    """
    n = len(estimate.elo)
    if top >= n:
        return np.ones(n)
    order = estimate.best(top + 1)
    border = estimate.elo[order[-2:]].mean()
    error = np.sqrt(np.maximum(estimate.covariance.diagonal(), 1e-12))
    return np.asarray(ndtr((estimate.elo - border) / error))
