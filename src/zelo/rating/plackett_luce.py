"""Elos from whole rankings: Plackett–Luce, the listwise generalisation of Bradley–Terry.

A ranking is drawn by choosing the best document with probability ∝ exp(e), then the best of the
rest, and so on (METHOD, stage 5). Two documents are Bradley–Terry, and comparisons of two can
stand beside rankings in one likelihood.

Of documents that are tied some order is the right one, and nothing is known of which: the
logarithm of the likelihood is averaged over all orders. For two documents that is a comparison with
p = ½. Of more than five, the average over what may still be there when s of t are is taken to be
`log (Σ_lower exp(e) + s/t Σ_tied exp(e))`, which is exact where they are equal (the denominators of
Efron's rule for ties in survival times, JASA 72, 1977). Of documents that are only known to be
below the others (a list that was cut off, the rest in a choice of the best) no order is averaged:
there is none to be known.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from zelo.rating.comparisons import Comparisons, Reals, Wholes, host, whole
from zelo.rating.likelihood import error_bounds
from zelo.rating.solver import MODELS, Fit, checked, left_by_doubles, zero_sum_inverse

MAX_STEPS = 200
EXACT = 5  # tied documents, of which what may be left of them is listed: 2⁵ − 1 choices

Ranking = Sequence[int | Sequence[int]]  # the best first; several at one place are tied


@dataclass(frozen=True)
class RankingChoices:
    """`N` choices of one among the `n` documents of a query, and what was chosen.

    `log_weight` (N, n) is added to the Elos: 0 for what there is to choose from, −∞ for the rest,
    log (s / t) for documents of which s of t are there. `weight` (N,) says how often a choice was
    made, `chosen` (n,) how often each document was chosen, in all.
    """

    log_weight: Reals
    weight: Reals
    chosen: Reals

    @staticmethod
    def none(n: int) -> RankingChoices:
        """No choice among `n` documents."""
        return RankingChoices(np.zeros((0, n)), np.zeros(0), np.zeros(n))

    @staticmethod
    def of_ranking(n: int, groups: Sequence[Wholes], below: Wholes) -> RankingChoices:
        """Those of a ranking: groups of tied documents, the best first, and what is `below` them
        in no known order."""
        rows: list[Reals] = []
        weight: list[float] = []
        chosen = np.zeros(n)
        left = np.full(n, -np.inf)  # what is there to choose from
        left[below] = 0.0
        for group in reversed(groups):
            t, lowest = len(group), bool(np.isneginf(left).all())
            # Of the lowest group the last one is all that is left, which is no choice.
            for s in range(1 + lowest, t + 1):
                some = list(combinations(group, s)) if t <= EXACT else [tuple(group)]
                for there in some:
                    row = left.copy()
                    row[list(there)] = 0.0 if t <= EXACT else np.log(s / t)
                    rows.append(row)
                    weight.append(1 / len(some))
            chosen[group] = 1 - 1 / t if lowest else 1.0
            left[group] = 0.0
        log_weight = np.array(rows, np.float64).reshape(-1, n)
        return RankingChoices(log_weight, np.array(weight, np.float64), chosen)

    def of_judge(self, weight: float, advantage: Reals | None = None) -> RankingChoices:
        """The same, counting `weight` times as much, where documents have the `advantage` (n,) on
        top of their Elos of standing where they were shown."""
        moved = self.log_weight if advantage is None else self.log_weight + advantage
        return RankingChoices(moved, weight * self.weight, weight * self.chosen)

    @staticmethod
    def of_pairs(n: int, comparisons: Comparisons, query: int) -> RankingChoices:
        """Those of the comparisons of two documents of a query."""
        rows = comparisons.rows_of(query)
        i, j, p = comparisons.i[rows], comparisons.j[rows], comparisons.p[rows]
        weight, known = comparisons.weight[rows], comparisons.known
        log_weight = np.full((len(i), n), -np.inf)
        log_weight[np.arange(len(i)), i] = known[rows] if len(known) else 0.0
        log_weight[np.arange(len(i)), j] = 0.0
        chosen = np.bincount(i, weight * p, n) + np.bincount(j, weight * (1 - p), n)
        return RankingChoices(log_weight, weight, chosen.astype(np.float64))

    @staticmethod
    def together(parts: Sequence[RankingChoices], n: int) -> RankingChoices:
        """All choices of several."""
        parts = [RankingChoices.none(n), *parts]
        return RankingChoices(
            np.concatenate([part.log_weight for part in parts]),
            np.concatenate([part.weight for part in parts]),
            np.sum([part.chosen for part in parts], axis=0),
        )


def fit_rankings(
    query: ArrayLike,
    rankings: Sequence[Ranking | ArrayLike],
    prior: float = 0.05,
    tolerance: float = 1e-8,
    sizes: ArrayLike | None = None,
    below: Sequence[Iterable[int]] | None = None,
    comparisons: Comparisons | None = None,
    weight: ArrayLike | None = None,
    advantage: Sequence[Reals] | None = None,
) -> Fit:
    """Elos of the documents of `Q` queries from `R` rankings of some of their documents.

    `query` (R,) whole numbers; each ranking lists distinct documents of its query, numbered from
    0, the best first, and those that are tied together. `below` has for each ranking documents that
    are below all that it lists, in no known order. `comparisons` are comparisons of two documents
    of the same queries that count as well; a ranking counts as `weight` (R,) of one. `advantage`
    (R × documents of the query) is what each document has on top of its Elo where it was shown, see
    `slot_effects`. `prior`, `tolerance` and the result are as in
    `solver.fit`, the weight of a query's documents its number of choices; `ranking_errors` has the
    standard errors.

    Raises `ValueError` naming query and row for a document listed twice or out of range, a ranking
    without two documents, or a query without documents.
    """
    checked(MODELS[1], prior)
    made = choices_of(query, rankings, sizes, below, comparisons, weight, advantage)
    counts = np.array([len(choices.chosen) for choices in made], np.int64)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    elo = np.zeros(offsets[-1])
    iterations, error = np.zeros(len(counts), np.int64), np.zeros(len(counts))
    for q, choices in enumerate(made):
        elos, iterations[q], error[q] = _newton(choices, prior, tolerance)
        elo[offsets[q] : offsets[q + 1]] = elos
    number = np.array([choices.weight.sum() for choices in made])
    left = left_by_doubles(elo, offsets, number, prior)
    return Fit(elo, iterations, error <= np.maximum(tolerance, left), error + left, offsets)


def ranking_errors(
    query: ArrayLike,
    rankings: Sequence[Ranking | ArrayLike],
    elo: ArrayLike,
    prior: float = 0.05,
    sizes: ArrayLike | None = None,
    below: Sequence[Iterable[int]] | None = None,
    comparisons: Comparisons | None = None,
    weight: ArrayLike | None = None,
    advantage: Sequence[Reals] | None = None,
) -> Reals:
    """Standard errors (D,) of the Elos `elo` (D,) that `fit_rankings` found, as
    `solver.standard_errors` has them of comparisons: from the inverse information on the zero-sum
    subspace, each choice taken for one answer."""
    checked(MODELS[1], prior)
    found, start, elos = [], 0, np.asarray(host(elo), np.float64)
    for choices in choices_of(query, rankings, sizes, below, comparisons, weight, advantage):
        n = len(choices.chosen)
        _, _, matrix = derivatives(elos[start : start + n], choices, prior)
        variance = zero_sum_inverse(matrix, prior).diagonal()
        found.append(np.sqrt(np.maximum(variance, 0.0)))
        start += n
    return np.concatenate([np.zeros(0), *found])


def choices_of(
    query: ArrayLike,
    rankings: Sequence[Ranking | ArrayLike],
    sizes: ArrayLike | None = None,
    below: Sequence[Iterable[int]] | None = None,
    comparisons: Comparisons | None = None,
    weight: ArrayLike | None = None,
    advantage: Sequence[Reals] | None = None,
) -> list[RankingChoices]:
    """The choices of each query, see `fit_rankings`."""
    of = whole("query", query)
    if len(of) != len(rankings):
        raise ValueError(f"{len(of)} queries for {len(rankings)} rankings")
    if below is not None and len(below) != len(rankings):
        raise ValueError(f"{len(below)} lists of what is below for {len(rankings)} rankings")
    listed = [_groups(row, ranking) for row, ranking in enumerate(rankings)]
    lower = [whole("below", list(docs)) for docs in below or [()] * len(rankings)]
    counts = _sizes(of, listed, lower, comparisons) if sizes is None else whole("sizes", sizes)
    _check(of, listed, lower, counts)
    times = np.ones(len(of)) if weight is None else np.asarray(host(weight), np.float64)
    if len(times) != len(of) or not (times >= 0).all():
        raise ValueError(f"{len(of)} rankings need as many weights, none below 0: {times}")
    parts: list[list[RankingChoices]] = [[] for _ in counts]
    for row, (q, groups, rest) in enumerate(zip(of, listed, lower, strict=True)):
        choices = RankingChoices.of_ranking(int(counts[q]), groups, rest)
        moved = None if advantage is None else advantage[row]
        parts[q].append(choices.of_judge(float(times[row]), moved))
    if comparisons is not None:
        if (
            len(comparisons.sizes) > len(counts)
            or (comparisons.sizes > counts[: len(comparisons.sizes)]).any()
        ):
            raise ValueError("comparisons: of queries or documents that rankings do not have")
        for q in range(comparisons.queries):
            parts[q].append(RankingChoices.of_pairs(int(counts[q]), comparisons, q))
    return [
        RankingChoices.together(of_query, int(n)) for of_query, n in zip(parts, counts, strict=True)
    ]


def _newton(choices: RankingChoices, prior: float, tolerance: float) -> tuple[Reals, int, float]:
    """Damped Newton steps for one query: Elos (n,), steps taken, how far off they may be.

    `likelihood.error_bounds` holds with the steepness of Bradley–Terry: along u the third
    derivative of a choice is at most max u − min u, itself at most √2 |u|, times its second.
    """
    e: Reals = np.zeros(len(choices.chosen))
    value, gradient, matrix = derivatives(e, choices, prior)
    for steps in range(MAX_STEPS + 1):
        direction = np.asarray(-np.linalg.solve(matrix, gradient), dtype=np.float64)
        step = 1.0
        before, after = error_bounds(
            gradient, matrix, direction, np.zeros(0), "bradley_terry", prior
        )
        if before <= tolerance or steps == MAX_STEPS:
            break
        if after <= tolerance:
            e = e + direction
            return e - e.mean(), steps + 1, after
        while True:
            trial = derivatives(e + step * direction, choices, prior)
            slack = 1e-14 * (1 + abs(value))  # sums round
            if trial[0] <= value + 1e-4 * step * (gradient @ direction) + slack or step < 1e-12:
                break
            step /= 2
        e = e + step * direction
        value, gradient, matrix = trial
    return e - e.mean(), steps, before


def derivatives(e: Reals, choices: RankingChoices, prior: float) -> tuple[float, Reals, Reals]:
    """Penalised negative log-likelihood, gradient (n,) and Hessian (n, n) of one query."""
    left = e + choices.log_weight
    total = logsumexp(left, axis=1)
    chance = np.exp(left - total[:, None])
    expected = choices.weight @ chance
    value = prior / 2 * float(e @ e) + float(choices.weight @ total) - float(choices.chosen @ e)
    matrix = np.diag(prior + expected) - chance.T @ (choices.weight[:, None] * chance)
    return value, prior * e + expected - choices.chosen, matrix


def _groups(row: int, ranking: Ranking | ArrayLike) -> list[Wholes]:
    """Tied documents of each place of a ranking, the best first."""
    places = host(ranking)
    return [
        np.atleast_1d(whole(f"ranking {row}", place if np.ndim(place) else [place]))
        for place in places
    ]


def _sizes(
    query: Wholes,
    rankings: Sequence[Sequence[Wholes]],
    below: Sequence[Wholes],
    comparisons: Comparisons | None,
) -> Wholes:
    if len(query) and query.min() < 0:
        raise ValueError(f"row {int(query.argmin())}: query {query.min()} is out of range")
    pairs = np.zeros(0, np.int64) if comparisons is None else comparisons.sizes
    sizes = np.zeros(max(int(query.max(initial=-1)) + 1, len(pairs)), np.int64)
    sizes[: len(pairs)] = pairs
    for q, groups, rest in zip(query, rankings, below, strict=True):
        for docs in (*groups, rest):
            sizes[q] = max(sizes[q], docs.max(initial=-1) + 1)
    return sizes


def _check(
    query: Wholes,
    rankings: Sequence[Sequence[Wholes]],
    below: Sequence[Wholes],
    sizes: Wholes,
) -> None:
    if (sizes < 1).any():
        raise ValueError(f"query {int((sizes < 1).argmax())}: no documents to compare")
    for row, (q, groups, rest) in enumerate(zip(query, rankings, below, strict=True)):
        place = f"row {row}, query {q}"
        if not 0 <= q < len(sizes):
            raise ValueError(f"row {row}: query {q} is out of range for {len(sizes)} queries")
        documents = np.concatenate([*groups, rest]).tolist()
        if len(documents) < 2 or not groups:
            raise ValueError(f"{place}: a ranking needs two documents, found {len(documents)}")
        if min(documents) < 0 or max(documents) >= sizes[q]:
            raise ValueError(f"{place}: document index out of range in {documents}")
        if len(set(documents)) < len(documents):
            raise ValueError(f"{place}: a document is listed twice in {documents}")
