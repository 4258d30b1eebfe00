"""Judges modelled together with the Elos: position bias and discrimination of each.

Judge k prefers the document it is shown first with probability `P(s_k (e_i − e_j) + h_k)`, where
`P` is that of the model, `h_k` its position bias (a home advantage; 0: none) and `s_k > 0` its
discrimination (a judge of scale 2 tells documents apart like one of scale 1 does at twice the
difference). The mean of the scales is 1, which fixes the scale of the Elos: it is that of the
judges' averaged answers, whatever one of them is like. (With a geometric mean a judge that guesses,
of a scale near 0, would make all Elos vanish.)

Maximising over Elos and judges at once would exaggerate the scales, since each Elo fits its own
few comparisons too well (Neyman and Scott, 1948). The judges are therefore fitted to the marginal
likelihood by EM: the Elos are averaged over, in their Laplace approximation, and the variance of
their Gaussian prior is estimated with the rest. That prior takes answers for coin flips: where they
are steadier than that, it pulls Elos to 0 by more than they deserve. The Elos are therefore fitted
once more to the judges that were found, under the prior that was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from zelo.rating import kernels
from zelo.rating.comparisons import Comparisons, Reals, Wholes, whole
from zelo.rating.solver import MODELS, checked

MAX_STEPS = 500
NEWTON_STEPS = 20  # of the Elos in one step of EM
JUDGE_PRIOR = 1.0  # precision of the bias's and the scale's prior, one comparison being the unit
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(7)  # averages over a normal variable


@dataclass(frozen=True)
class JudgeFit:
    """Elos of `D` documents and what `K` judges are like; standard errors allow for both."""

    elo: Reals  # (D,) float64, zero-sum within each query
    stderr: Reals  # (D,)
    bias: Reals  # (K,) h_k
    bias_stderr: Reals  # (K,)
    scale: Reals  # (K,) s_k
    log_scale_stderr: Reals  # (K,) standard error of log s_k
    prior: float  # precision of the Elos' prior that was estimated with the judges
    iterations: int
    converged: bool


def fit_judges(
    comparisons: Comparisons,
    judge: ArrayLike,
    judges: int | None = None,
    model: str = "thurstone",
    prior: float | None = None,
    tolerance: float = 1e-4,
) -> JudgeFit:
    """Elos, position bias and discrimination of judges from their single answers.

    `prior` is the precision of the Gaussian prior on an Elo; None: as it was estimated. In
    `comparisons` document `i` is the one shown first and `p` is what one judge said; `judge`
    (M,) says which, 0..K−1. A bias is seen only where which document is shown first was drawn at
    random, and a scale only where judges answer about the same queries. Stops when no bias or log
    scale changes by more than `tolerance` in a step of EM.

    Raises `ValueError` where a judge is out of range.
    """
    checked(model, 1.0 if prior is None else prior)
    data = _Data(comparisons, whole("judge", judge), judges, model)
    elo, scale, bias = np.zeros(data.documents), np.ones(data.judges), np.zeros(data.judges)
    if len(comparisons) == 0:  # nothing is known of anyone
        unknown = np.full(data.judges, JUDGE_PRIOR**-0.5)
        return JudgeFit(elo, np.ones(len(elo)), bias, unknown, scale, unknown, 1.0, 0, True)
    converged, steps = False, 0
    while not converged and steps < MAX_STEPS:
        steps += 1
        elo, variance = _posterior(data, elo, scale, bias, 1.0)
        now = _judges_given(data, data.differences(elo), variance, scale, bias)
        change = max(np.abs(np.log(now[0] / scale)).max(), np.abs(now[1] - bias).max())
        (scale, bias), converged = now, bool(change <= tolerance)
    # The Elos were fitted with a prior of variance 1, which is now put into their scale.
    mean = float(scale.mean())
    estimated = 1 / mean**2
    scale, prior = scale / mean, estimated if prior is None else prior
    elo, _ = _posterior(data, elo * mean, scale, bias, prior)
    stderr, judge_stderr = _standard_errors(data, elo, scale, bias, prior)
    return JudgeFit(
        elo, stderr, bias, judge_stderr[data.judges :], scale, judge_stderr[: data.judges],
        estimated, steps, converged,
    )  # fmt: skip


class _Data:
    """The comparisons, in the order of their queries."""

    def __init__(
        self, comparisons: Comparisons, judge: Wholes, judges: int | None, model: str
    ) -> None:
        if len(judge) != len(comparisons):
            raise ValueError(f"{len(judge)} judges for {len(comparisons)} comparisons")
        self.judges = int(judge.max(initial=-1)) + 1 if judges is None else judges
        strange = (judge < 0) | (judge >= self.judges)
        if strange.any():
            row = int(strange.argmax())
            raise ValueError(
                f"row {row}, query {comparisons.query[row]}: judge {judge[row]} is out of range "
                f"for {self.judges} judges"
            )
        self.model = MODELS.index(model)
        self.offsets, self.rows = comparisons.offsets, comparisons.row_offsets
        self.documents = int(self.offsets[-1])
        i, j, self.p, self.weight, known = comparisons.packed
        self.i, self.j = i.astype(np.int64), j.astype(np.int64)
        self.known = known if len(known) else np.zeros(len(self.p))
        self.judge = judge[comparisons.order]
        base = comparisons.base[comparisons.order]
        self.first, self.second = base + self.i, base + self.j

    def differences(self, elo: Reals) -> Reals:
        """`e_i − e_j` (M,)."""
        return np.asarray(elo[self.first] - elo[self.second] + self.known)

    def derivatives(self, d: Reals, times: int = 1) -> tuple[Reals, Reals]:
        """Slope and curvature of the loss at the predictors `d` (times · M,)."""
        slope, curvature = np.empty_like(d), np.empty_like(d)
        kernel = kernels.thurstone if self.model == kernels.THURSTONE else kernels.bradley_terry
        kernel(d, np.tile(self.p, times), np.tile(self.weight, times), slope, curvature)
        return slope, curvature


def _posterior(
    data: _Data, elo: Reals, scale: Reals, bias: Reals, prior: float
) -> tuple[Reals, Reals]:
    """Elos (D,) of highest posterior, and the posterior variance (M,) of each difference."""
    s, h = scale[data.judge], bias[data.judge]
    for _ in range(NEWTON_STEPS):
        slope, curvature = data.derivatives(s * data.differences(elo) + h)
        gradient = prior * elo
        np.add.at(gradient, data.first, s * slope)
        np.subtract.at(gradient, data.second, s * slope)
        inverses = [_inverse(data, q, s * s * curvature, prior) for q in range(len(data.rows) - 1)]
        step = -np.concatenate(
            [
                inverse @ gradient[first:last]
                for inverse, first, last in zip(
                    inverses, data.offsets, data.offsets[1:], strict=False
                )
            ]
        )
        elo = elo + step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-6:
            break
    variance = np.concatenate(
        [
            inverse[i, i] + inverse[j, j] - 2 * inverse[i, j]
            for q, inverse in enumerate(inverses)
            for i, j in [
                (data.i[data.rows[q] : data.rows[q + 1]], data.j[data.rows[q] : data.rows[q + 1]])
            ]
        ]
    )
    return elo, np.maximum(variance, 0.0)


def _inverse(data: _Data, q: int, curvature: Reals, prior: float) -> Reals:
    """Inverse Hessian (n, n) of the Elos of query `q`, on the zero-sum subspace."""
    low, high = data.rows[q], data.rows[q + 1]
    n = int(data.offsets[q + 1] - data.offsets[q])
    cell = data.i[low:high] * n + data.j[low:high]
    adjacency = np.bincount(cell, curvature[low:high], n * n).reshape(n, n)
    adjacency += adjacency.T
    matrix = np.diag(adjacency.sum(1) + prior) - adjacency
    stiff = matrix.diagonal().max()  # see kernels/uncertainty.py
    return np.asarray(inverted(matrix + stiff / n) - 1 / (n * (prior + stiff)))


def inverted(matrix: Reals) -> Reals:
    """Inverse of a symmetric matrix; the pseudo-inverse where doubles take it for singular."""
    try:
        return np.asarray(np.linalg.inv(matrix))
    except np.linalg.LinAlgError:
        return np.asarray(np.linalg.pinv(matrix, hermitian=True))


def _judges_given(
    data: _Data, mean: Reals, variance: Reals, scale: Reals, bias: Reals
) -> tuple[Reals, Reals]:
    """One Newton step of every judge's scale and bias, averaged over where differences may lie."""
    d = (mean + np.sqrt(variance) * NODES[:, None]).ravel()
    share = np.repeat(NODE_WEIGHTS / NODE_WEIGHTS.sum(), len(mean))
    judge = np.tile(data.judge, len(NODES))
    slope, curvature = data.derivatives(scale[judge] * d + bias[judge], len(NODES))
    slope, curvature = share * slope, share * curvature

    def per_judge(values: Reals) -> Reals:
        return np.bincount(judge, values, data.judges).astype(np.float64)

    gradient = np.stack(
        [
            per_judge(slope * d) + JUDGE_PRIOR * (scale - 1),
            per_judge(slope) + JUDGE_PRIOR * bias,
        ],
        axis=1,
    )
    cross = per_judge(curvature * d)
    information = np.stack(
        [
            np.stack([per_judge(curvature * d * d) + JUDGE_PRIOR, cross], 1),
            np.stack([cross, per_judge(curvature) + JUDGE_PRIOR], 1),
        ],
        axis=1,
    )
    step = -np.linalg.solve(information, gradient[:, :, None])[:, :, 0]
    return np.clip(scale + step[:, 0], scale / 2, 2 * scale), bias + np.clip(step[:, 1], -1, 1)


def _standard_errors(
    data: _Data, elo: Reals, scale: Reals, bias: Reals, prior: float
) -> tuple[Reals, Reals]:
    """Of the Elos (D,), and of log scales and biases (2 K,), each allowing for the other.

    Elos of different queries meet only through the judges, so that the judges' information is what
    they have less what each query's Elos take of it (a Schur complement).
    """
    k, s = data.judges, scale[data.judge]
    u = s * data.differences(elo)  # how the predictor moves with log s
    _, curvature = data.derivatives(u + bias[data.judge])
    columns = np.zeros((len(u), 2 * k))
    columns[np.arange(len(u)), data.judge] = u
    columns[np.arange(len(u)), k + data.judge] = 1.0
    information = columns.T @ (curvature[:, None] * columns) + JUDGE_PRIOR * np.eye(2 * k)
    inverses, pulls = [], []
    for q in range(len(data.rows) - 1):
        rows = slice(data.rows[q], data.rows[q + 1])
        n = int(data.offsets[q + 1] - data.offsets[q])
        pull = np.zeros((n, 2 * k))
        moved = (curvature[rows] * s[rows])[:, None] * columns[rows]
        np.add.at(pull, data.i[rows], moved)
        np.subtract.at(pull, data.j[rows], moved)
        inverse = _inverse(data, q, s * s * curvature, prior)
        information -= pull.T @ inverse @ pull
        inverses.append(inverse)
        pulls.append(inverse @ pull)
    # A common factor of all scales is the scale of the Elos, and no property of the judges.
    free = np.linalg.svd(scale[None])[2][1:].T  # steps of log s that leave the mean of s as it is
    basis = np.zeros((2 * k, 2 * k - 1))
    basis[:k, : k - 1], basis[k:, k - 1 :] = free, np.eye(k)
    judges = basis @ inverted(basis.T @ information @ basis) @ basis.T
    variance = np.concatenate(
        [
            inverse.diagonal() + np.einsum("ak,kl,al->a", pull, judges, pull)
            for inverse, pull in zip(inverses, pulls, strict=True)
        ]
    )
    return np.sqrt(np.maximum(variance, 0.0)), np.sqrt(np.maximum(judges.diagonal(), 0.0))
