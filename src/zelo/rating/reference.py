"""The readable solver: one query, dense matrices, plain damped Newton.

Tests and benchmarks hold the fast solver (`kernels/`) against it; the package itself does not use
it.
"""

from __future__ import annotations

import numpy as np

from zelo.rating.comparisons import Reals, Wholes
from zelo.rating.likelihood import derivatives, error_bounds


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
    """Elos (n,) that minimise `Σ weight · loss(e_i − e_j + known, p) + prior/2 · Σ e²`.

    They are within 1e-12 of their standard errors, but for rounding.
    """
    e: Reals = np.zeros(n)
    before = np.inf
    for _ in range(200):
        value, gradient, matrix = derivatives(e, i, j, p, weight, model, prior, known)
        direction = np.asarray(-np.linalg.solve(matrix, gradient), dtype=np.float64)
        step = 1.0
        d = e[i] - e[j] + known
        if error_bounds(gradient, matrix, direction, d, model, prior)[0] <= 1e-12:
            break
        size = float(np.abs(gradient).max())
        if size <= 1e-12 * (1 + weight.sum()) and size >= before:  # rounding: no more is gained
            break
        before = size
        slack = 1e-14 * (1 + abs(value))  # sums round
        while step > 1e-12:
            trial = derivatives(e + step * direction, i, j, p, weight, model, prior, known)[0]
            if trial <= value + 1e-4 * step * (gradient @ direction) + slack:
                break
            step /= 2
        e = e + step * direction
    return e - e.mean() if n else e


def covariance(matrix: Reals) -> Reals:
    """Inverse (n, n) of a Hessian on the zero-sum subspace, by its definition."""
    n = len(matrix)
    centre = np.eye(n) - 1 / n
    return np.asarray(np.linalg.pinv(centre @ matrix @ centre, hermitian=True), dtype=np.float64)
