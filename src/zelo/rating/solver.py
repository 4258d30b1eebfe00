"""Maximum a posteriori Elos of many queries, and how sure they are.

The compiled functions of `kernels/` work, on the machine's cores wherever tensors are; they are
tested against the readable `reference.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zelo.rating.comparisons import Comparisons, Reals, Wholes

MODELS = ("thurstone", "bradley_terry")  # their order is that of the kernels' numbers for them
WEAKEST = 1e-12  # prior that doubles can tell from none beside one comparison
ROUNDING = 1e-15  # of a sum, relative to its largest terms
CHUNK = 32_768  # comparisons that a thread takes at once


@dataclass(frozen=True)
class Fit:
    """Elos of the documents of `Q` queries, one query after another.

    Tensors on the device of `p` if that was a tensor, reals of its dtype, that do not require a
    gradient: none flows through a fit.

    No Elo of query `q` is farther than `error[q]` of its standard error from the maximum. A query
    that has not converged has an error above both the tolerance asked for and what doubles can
    tell; its Elos are the best that were found.
    """

    elo: Any  # (D,) float64, zero-sum within each query
    iterations: Any  # (Q,) int64, Newton steps
    converged: Any  # (Q,) bool
    error: Any  # (Q,) float64, standard errors
    offsets: Any  # (Q + 1,) int64

    def of(self, query: int) -> Any:
        """Elos (n,) of one query."""
        return self.elo[int(self.offsets[query]) : int(self.offsets[query + 1])]


def fit(
    comparisons: Comparisons,
    model: str = "thurstone",
    prior: float = 0.05,
    tolerance: float = 1e-8,
    start: ArrayLike | None = None,
    threads: int | None = None,
) -> Fit:
    """Elos `e` that minimise `Σ w · nll(e_i − e_j, p) + prior/2 · Σ e²`, each query on its own.

    `model` is "thurstone", `P(i ≻ j) = (1 + erf(e_i − e_j)) / 2`, or "bradley_terry",
    `1 / (1 + exp(e_j − e_i))`; `nll = −p log P(i ≻ j) − (1 − p) log P(j ≻ i)` (METHOD, stage 5).
    `prior` > 0 is the precision of a Gaussian prior on each Elo, one comparison being the unit. It
    makes the answer unique and finite whatever is compared: documents that always win stop where
    the prior's pull equals the evidence, components of a disconnected graph and documents without
    comparisons have mean 0, ties and contradictions are equal.

    Each Elo of a fit that converged is within `tolerance` of its standard error (see
    `standard_errors`) of the minimum's, and so within `tolerance / √prior`, or within what doubles
    leave where that is more (`left_by_doubles`). `likelihood.error_bounds` has the proof. `start`
    (D,) is where to begin, by default a weighted least-squares fit to the preferences. `threads`
    are the CPU's, by default all there are. Computed in float64, and rounded at the end where `p`
    is a tensor of fewer bits.

    Raises `ValueError` for a model, prior, tolerance or start that cannot be.
    """
    checked(model, prior)
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, found {tolerance}")
    documents = int(comparisons.offsets[-1])
    elo = np.zeros(documents) if start is None else comparisons.elos(start).copy()
    from zelo.rating import kernels

    iterations = np.zeros(comparisons.queries, np.int64)
    error, heaviest = np.zeros(comparisons.queries), np.zeros(comparisons.queries)
    curvature_at, slope_at = saturated(model)

    def solve_chunk(first: int, last: int, *arrays: Any) -> None:
        kernels.solve(
            first, last, *arrays, prior, tolerance, start is not None,
            curvature_at, slope_at, elo, iterations, error, heaviest,
        )  # fmt: skip

    in_parallel(solve_chunk, comparisons, model, threads)
    left = left_by_doubles(elo, comparisons.offsets, heaviest, prior)
    converged = error <= np.maximum(tolerance, left)
    found = (elo, iterations, converged, error + left, comparisons.offsets)
    return Fit(*(like(comparisons, values) for values in found))


def left_by_doubles(elo: Reals, offsets: Wholes, heaviest: Reals, prior: float) -> Reals:
    """What rounding may leave of a query's Elos, in standard errors (Q,).

    `elo` (D,), `offsets` (Q + 1,) and `heaviest` (Q,) W, the largest total weight of a document's
    comparisons. A document's gradient is a sum whose terms W bounds; what rounding adds to it is
    held by the prior at least: 1e-15 (1 + W) √(n / prior) for n documents. And an Elo is a double:
    1e-15 of the largest, where a standard error is at least 1 / (2 √(prior + 2 W)), as no
    comparison's curvature is above 2 and a document that moves alone moves half of the way at
    least, the mean staying 0.
    """
    largest = np.maximum.reduceat(np.abs(elo), offsets[:-1]) if len(elo) else np.zeros(0)
    gradient = (1 + heaviest) * np.sqrt(np.diff(offsets) / prior)
    held: Reals = ROUNDING * (gradient + 2 * largest * np.sqrt(prior + 2 * heaviest))
    return held


def standard_errors(
    comparisons: Comparisons,
    elo: ArrayLike,
    model: str = "thurstone",
    prior: float = 0.05,
    threads: int | None = None,
) -> Any:
    """Standard errors (D,) of the Elos `elo` (D,) of a fit with the same model and prior.

    Square roots of the diagonal of the inverse observed information, prior included, on the
    zero-sum subspace: what a 95 % interval `e ± 1.96 stderr` needs if the model holds and each
    comparison is one yes-or-no answer. Soft answers that are more consistent than coin flips of
    their preference are surer than this says: multiply by √`dispersion`.
    """
    checked(model, prior)
    elos = comparisons.elos(elo)
    from zelo.rating import kernels

    stderr = np.zeros(int(comparisons.offsets[-1]))

    def solve_chunk(first: int, last: int, *arrays: Any) -> None:
        kernels.standard_errors(first, last, *arrays, prior, elos, stderr)

    in_parallel(solve_chunk, comparisons, model, threads)
    return like(comparisons, stderr)


def covariance(
    comparisons: Comparisons,
    elo: ArrayLike,
    query: int,
    model: str = "thurstone",
    prior: float = 0.05,
) -> Reals:
    """Covariance (n, n) of the Elos of one query: inverse information on the zero-sum subspace.

    The standard error of `e_i − e_j` is `√(C_ii + C_jj − 2 C_ij)`; see `difference_errors`.
    """
    from zelo.rating import likelihood

    checked(model, prior)
    rows = comparisons.rows_of(query)
    first, last = comparisons.offsets[query : query + 2]
    elos = comparisons.elos(elo)[first:last]
    i, j = comparisons.i[rows], comparisons.j[rows]
    p, weight = comparisons.p[rows], comparisons.weight[rows]
    known = comparisons.known[rows] if len(comparisons.known) else 0.0
    _, _, matrix = likelihood.derivatives(elos, i, j, p, weight, model, prior, known)
    return zero_sum_inverse(matrix, prior)


def zero_sum_inverse(matrix: Reals, prior: float) -> Reals:
    """Inverse (n, n) of the Hessian of one query on the zero-sum subspace.

    The constant vector is an eigenvector (eigenvalue: the prior); see kernels/uncertainty.py.
    """
    n, stiff = len(matrix), matrix.diagonal().max()
    inverse = np.linalg.inv(matrix + stiff / n) - 1 / (n * (prior + stiff))
    return np.asarray((inverse + inverse.T) / 2)


def difference_errors(covariance: Reals) -> Reals:
    """Standard errors (n, n) of all differences `e_i − e_j`, from a `covariance` (n, n)."""
    variance = covariance.diagonal()
    return np.sqrt(np.maximum(variance[:, None] + variance[None, :] - 2 * covariance, 0.0))


def dispersion(comparisons: Comparisons, elo: ArrayLike, model: str = "thurstone") -> Reals:
    """Spread of the answers about the fit, per query (Q,), as a share of that of coin flips.

    `Σ w (p − P)² / Σ w P (1 − P)`, times `M / (M − n + components)` for the Elos that were fitted:
    about 1 where each answer is a flip of a coin with the fitted probability, far below for judges
    that report probabilities themselves; NaN where no comparison is to spare.
    """
    from scipy.special import expit, ndtr

    d, queries = comparisons.differences(elo), comparisons.queries
    win = ndtr(np.sqrt(2) * d) if model == "thurstone" else expit(d)
    seen = np.bincount(comparisons.query, comparisons.weight * (comparisons.p - win) ** 2, queries)
    flips = np.bincount(comparisons.query, comparisons.weight * win * (1 - win), queries)
    counts = np.diff(comparisons.row_offsets)
    spare = counts - comparisons.sizes + comparisons.components
    known = (spare > 0) & (flips > 0)
    ratio = seen / np.where(known, flips, 1.0) * counts / np.where(known, spare, 1)
    return np.where(known, ratio, np.nan)


def in_parallel(
    solve_chunk: Callable[..., None], comparisons: Comparisons, model: str, threads: int | None
) -> None:
    """Call `solve_chunk(first, last, model, row_offsets, offsets, *packed)` for all queries."""
    arrays = (
        MODELS.index(model),
        comparisons.row_offsets,
        comparisons.offsets,
        *comparisons.packed,
    )
    chunks = list(chunked(comparisons))
    threads = min(threads or len(os.sched_getaffinity(0)), len(chunks))
    if threads <= 1:
        for first, last in chunks:
            solve_chunk(first, last, *arrays)
        return
    with ThreadPoolExecutor(threads) as pool:  # the kernels release the interpreter lock
        list(pool.map(lambda chunk: solve_chunk(*chunk, *arrays), chunks))


def chunked(comparisons: Comparisons) -> Iterator[tuple[int, int]]:
    """Runs of queries with about `CHUNK` comparisons each."""
    rows, first = comparisons.row_offsets, 0
    while first < comparisons.queries:
        last = int(np.searchsorted(rows, rows[first] + CHUNK, side="right")) - 1
        last = min(max(last, first + 1), comparisons.queries)
        yield first, last
        first = last


@cache
def saturated(model: str) -> tuple[Reals, Reals]:
    """Curvature and slope at 0 of the parabola that best stands for a comparison, over p in [0, 1].

    The parabola has its minimum at the difference `d*` with `P(d*) = p` and the loss's curvature
    there; p is kept within [0.02, 0.98], where `d*` is moderate. 257 points to interpolate between.
    """
    from scipy.special import logit, ndtri

    p = np.clip(np.linspace(0.0, 1.0, 257), 0.02, 0.98)
    if model == "thurstone":
        x = ndtri(p)
        best = x / np.sqrt(2)
        curvature = 2 * np.exp(-x * x) / (2 * np.pi) / (p * (1 - p))
    else:
        best, curvature = logit(p), p * (1 - p)
    return curvature, -curvature * best


def checked(model: str, prior: float) -> None:
    """`ValueError` for a model or prior that cannot be."""
    if model not in MODELS:
        raise ValueError(f"model must be one of {', '.join(MODELS)}, found {model}")
    if not (prior >= WEAKEST and np.isfinite(prior)):
        raise ValueError(f"prior must be finite and at least {WEAKEST:g}, found {prior}")


def like(comparisons: Comparisons, values: NDArray[Any] | Any) -> Any:
    """Arrays as tensors on the device of the preferences, reals of their dtype; where those were a
    tensor."""
    if comparisons.device is None:
        return values
    import torch

    tensor = torch.as_tensor(values)
    dtype = comparisons.dtype if tensor.is_floating_point() else None
    return tensor.to(comparisons.device, dtype)
