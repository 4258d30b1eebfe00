"""Elos from whole rankings: Plackett–Luce, the listwise generalisation of Bradley–Terry.

A ranking is drawn by choosing the best document with probability ∝ exp(e), then the best of the
rest, and so on (METHOD, stage 5). Two documents are Bradley–Terry.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp

from zelo.rating.comparisons import Reals, Wholes, host, whole
from zelo.rating.likelihood import error_bounds
from zelo.rating.solver import MODELS, Fit, checked, left_by_doubles

MAX_STEPS = 200


def fit_rankings(
    query: ArrayLike,
    rankings: Sequence[ArrayLike],
    prior: float = 0.05,
    tolerance: float = 1e-8,
    sizes: ArrayLike | None = None,
) -> Fit:
    """Elos of the documents of `Q` queries from `R` rankings of some of their documents.

    `query` (R,) whole numbers; each ranking lists distinct documents of its query, numbered from
    0, the best first. `prior`, `tolerance` and the result are as in `solver.fit`, standard errors
    being those of this likelihood and the weight of a query's documents its number of choices.

    Raises `ValueError` naming query and row for a document listed twice or out of range, a ranking
    of fewer than two documents, or a query without documents.
    """
    checked(MODELS[1], prior)
    of = whole("query", query)
    listed = [whole(f"ranking {row}", host(ranking)) for row, ranking in enumerate(rankings)]
    if len(of) != len(listed):
        raise ValueError(f"{len(of)} queries for {len(listed)} rankings")
    counts = _sizes(of, listed) if sizes is None else whole("sizes", sizes)
    _check(of, listed, counts)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    elo = np.zeros(offsets[-1])
    iterations, error = np.zeros(len(counts), np.int64), np.zeros(len(counts))
    groups: list[list[Wholes]] = [[] for _ in counts]
    for q, ranking in zip(of, listed, strict=True):
        groups[q].append(ranking)
    for q, group in enumerate(groups):
        elos, iterations[q], error[q] = _newton(int(counts[q]), group, prior, tolerance)
        elo[offsets[q] : offsets[q + 1]] = elos
    choices = np.array([sum(len(ranking) - 1 for ranking in group) for group in groups])
    left = left_by_doubles(elo, offsets, choices, prior)
    return Fit(elo, iterations, error <= np.maximum(tolerance, left), error + left, offsets)


def _newton(
    n: int, rankings: Sequence[Wholes], prior: float, tolerance: float
) -> tuple[Reals, int, float]:
    """Damped Newton steps for one query: Elos (n,), steps taken, how far off they may be.

    `likelihood.error_bounds` holds with the steepness of Bradley–Terry: along u the third
    derivative of a choice is at most max u − min u, itself at most √2 |u|, times its second.
    """
    e: Reals = np.zeros(n)
    value, gradient, matrix = derivatives(e, rankings, prior)
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
            trial = derivatives(e + step * direction, rankings, prior)
            slack = 1e-14 * (1 + abs(value))  # sums round
            if trial[0] <= value + 1e-4 * step * (gradient @ direction) + slack or step < 1e-12:
                break
            step /= 2
        e = e + step * direction
        value, gradient, matrix = trial
    return e - e.mean(), steps, before


def derivatives(e: Reals, rankings: Sequence[Wholes], prior: float) -> tuple[float, Reals, Reals]:
    """Penalised negative log-likelihood, gradient (n,) and Hessian (n, n) of one query."""
    value, gradient, matrix = prior / 2 * float(e @ e), prior * e, prior * np.eye(len(e))
    for ranking in rankings:
        k = len(ranking)
        # Row r: the documents still to be chosen from at choice r; the last choice is no choice.
        left = np.where(np.triu(np.ones((k, k), bool))[:-1], e[ranking], -np.inf)
        total = logsumexp(left, axis=1, keepdims=True)
        chance = np.exp(left - total)
        value += float(total.sum() - e[ranking[:-1]].sum())
        expected = chance.sum(0)
        gradient[ranking] += expected - (np.arange(k) < k - 1)
        matrix[np.ix_(ranking, ranking)] += np.diag(expected) - chance.T @ chance
    return value, gradient, matrix


def _sizes(query: Wholes, rankings: Sequence[Wholes]) -> Wholes:
    if len(query) and query.min() < 0:
        raise ValueError(f"row {int(query.argmin())}: query {query.min()} is out of range")
    sizes = np.zeros(int(query.max(initial=-1)) + 1, np.int64)
    for q, ranking in zip(query, rankings, strict=True):
        sizes[q] = max(sizes[q], ranking.max(initial=-1) + 1)
    return sizes


def _check(query: Wholes, rankings: Sequence[Wholes], sizes: Wholes) -> None:
    if (sizes < 1).any():
        raise ValueError(f"query {int((sizes < 1).argmax())}: no documents to compare")
    for row, (q, ranking) in enumerate(zip(query, rankings, strict=True)):
        place = f"row {row}, query {q}"
        if not 0 <= q < len(sizes):
            raise ValueError(f"row {row}: query {q} is out of range for {len(sizes)} queries")
        if len(ranking) < 2:
            raise ValueError(f"{place}: a ranking needs two documents, found {len(ranking)}")
        if ranking.min() < 0 or ranking.max() >= sizes[q]:
            raise ValueError(f"{place}: document index out of range in {ranking.tolist()}")
        if len(set(ranking.tolist())) < len(ranking):
            raise ValueError(f"{place}: a document is listed twice in {ranking.tolist()}")
