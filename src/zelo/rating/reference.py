"""The readable solver: one query, dense matrices, plain damped Newton.

What the fast solvers (`kernels.py`, `batched.py`) are tested against. `P(d)` is the probability
that a document whose Elo is higher by `d` is preferred.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, log_expit, log_ndtr

from zelo.rating.comparisons import Reals, Wholes

SQRT2 = np.sqrt(2.0)


def thurstone(d: Reals, p: Reals) -> tuple[Reals, Reals, Reals]:
    """Loss `−p log P(d) − (1 − p) log P(−d)`, slope and curvature for `P(d) = (1 + erf d) / 2`.

    With `x = √2 d` this is `P = Φ(x)`; the ratios `φ/Φ` are taken in logarithms, so that tails are
    not 0/0.
    """
    x = SQRT2 * d
    log_density = -0.5 * x * x - 0.5 * np.log(2 * np.pi)
    win, lose = np.exp(log_density - log_ndtr(x)), np.exp(log_density - log_ndtr(-x))
    loss = -p * log_ndtr(x) - (1 - p) * log_ndtr(-x)
    slope = SQRT2 * ((1 - p) * lose - p * win)
    # φ/Φ (x) · (x + φ/Φ (x)) ≥ 0, but for rounding in the far tail
    curvature = 2 * (p * win * np.maximum(x + win, 0) + (1 - p) * lose * np.maximum(lose - x, 0))
    return loss, slope, curvature


def bradley_terry(d: Reals, p: Reals) -> tuple[Reals, Reals, Reals]:
    """The same for `P(d) = 1 / (1 + exp(−d))`."""
    loss = -p * log_expit(d) - (1 - p) * log_expit(-d)
    return loss, expit(d) - p, expit(d) * expit(-d)


LIKELIHOODS = {"thurstone": thurstone, "bradley_terry": bradley_terry}


def newton(
    n: int,
    i: Wholes,
    j: Wholes,
    p: Reals,
    weight: Reals,
    model: str,
    prior: float,
    known: Reals | float = 0.0,
) -> Reals:
    """Elos (n,) that minimise `Σ weight · loss(e_i − e_j + known, p) + prior/2 · Σ e²`."""
    e = np.zeros(n)
    for _ in range(200):
        value, gradient, matrix = derivatives(e, i, j, p, weight, model, prior, known)
        if np.abs(gradient).max(initial=0.0) <= 1e-12 * (1 + weight.sum()):
            break
        direction, step = -np.linalg.solve(matrix, gradient), 1.0
        slack = 1e-14 * (1 + abs(value))  # sums round
        while step > 1e-12:
            trial = derivatives(e + step * direction, i, j, p, weight, model, prior, known)[0]
            if trial <= value + 1e-4 * step * (gradient @ direction) + slack:
                break
            step /= 2
        e = e + step * direction
    return e - e.mean() if n else e


def derivatives(
    e: Reals,
    i: Wholes,
    j: Wholes,
    p: Reals,
    weight: Reals,
    model: str,
    prior: float,
    known: Reals | float = 0.0,
) -> tuple[float, Reals, Reals]:
    """Objective, gradient (n,) and Hessian (n, n) of one query at the Elos `e` (n,)."""
    loss, slope, curvature = LIKELIHOODS[model](e[i] - e[j] + known, p)
    gradient, matrix = prior * e, prior * np.eye(len(e))
    np.add.at(gradient, i, weight * slope)
    np.subtract.at(gradient, j, weight * slope)
    for row, column, sign in ((i, i, 1), (j, j, 1), (i, j, -1), (j, i, -1)):
        np.add.at(matrix, (row, column), sign * weight * curvature)
    return float(weight @ loss + prior / 2 * e @ e), gradient, matrix


def covariance(matrix: Reals) -> Reals:
    """Inverse (n, n) of a Hessian on the zero-sum subspace, by its definition."""
    n = len(matrix)
    centre = np.eye(n) - 1 / n
    return np.asarray(np.linalg.pinv(centre @ matrix @ centre, hermitian=True), dtype=np.float64)
