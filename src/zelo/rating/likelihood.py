"""Likelihoods of a comparison, and of the comparisons of one query, in NumPy.

`P(d)` is the probability that a document whose Elo is higher by `d` is preferred. The same
is compiled in `kernels/likelihoods.py`.
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


def error_bounds(
    gradient: Reals, matrix: Reals, step: Reals, d: Reals, model: str, prior: float
) -> tuple[float, float]:
    """How far Elos are from the minimum, before and after a Newton step: in standard errors.

    `gradient` g (n,) and `matrix` H (n, n) are the derivatives at Elos whose differences are `d`
    (M,), and `step` s (n,) solves `H s = −g` up to a residual r. Lengths are |x|_H = √(xᵀHx); Elo a
    is off by at most √(H⁻¹)_aa |error|_H, its standard error times a length, which is what is
    bounded. With `prior`, H's least eigenvalue, the Newton decrement λ = √(gᵀH⁻¹g) is at most
    √(sᵀHs) + |r|/√prior.

    The logarithm of a comparison's curvature changes by at most L = 1 per Elo of difference for
    Bradley–Terry and 2 max |d| + 1 for Thurstone, and a difference by at most √(2/prior) per
    length. So H changes by factors within exp(±ωr) over a length r, ω = L √(2/prior). By convexity
    the minimum is within any r with λ ≤ r exp(−ωr): for a bend ωλ ≤ 0.1 that is 1.12 λ. The whole
    Newton step ends within ∫ (exp(ωrt) − 1) r dt ≤ 0.7 ωλ² of it, and s within |r|/√prior of that.
    Standard errors at its end are those at its beginning within 6 %, which makes that 1.2 λ before,
    and 1.1 |r|/√prior + ωλ² after. Infinite for a larger bend.
    """
    left = float(np.linalg.norm(gradient + matrix @ step) / np.sqrt(prior))
    decrement = float(np.sqrt(max(float(step @ matrix @ step), 0.0))) + left
    steepest = 2 * float(np.abs(d).max(initial=0.0)) + 1 if model == "thurstone" else 1.0
    bend = steepest * float(np.sqrt(2 / prior)) * decrement
    if bend > 0.1:
        return np.inf, np.inf
    return 1.2 * decrement, 1.1 * left + bend * decrement
