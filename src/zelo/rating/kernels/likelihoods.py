"""Slope and curvature of the loss of a comparison, without branches: four comparisons at once."""

from __future__ import annotations

import math

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from zelo.rating.kernels.compiling import ELEMENTWISE, compiled, polynomial

THURSTONE, BRADLEY_TERRY = 0, 1


@intrinsic
def _power_of_two(typing_context, z):
    """2^(b − 1023) for a float whose lowest mantissa bits hold the whole number b."""

    def generate(context, builder, signature, arguments):
        bits = builder.bitcast(arguments[0], ir.IntType(64))
        return builder.bitcast(builder.shl(bits, ir.Constant(ir.IntType(64), 52)), ir.DoubleType())

    return types.float64(types.float64), generate


ROUNDER = 1.5 * 2.0**52 + 1023.0  # added to a float, leaves its nearest integer + 1023 in the bits
LOG2_E = 1.0 / math.log(2.0)
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_exp_near_0 = polynomial(*(1.0 / math.factorial(k) for k in range(14)))  # |x| ≤ ln 2 / 2


@compiled(**ELEMENTWISE)
def exp_minus(u):
    """exp(−u) for u ≥ 0, as exp(−700) beyond 700; two ulp."""
    u = min(u, 700.0)
    z = ROUNDER - u * LOG2_E
    k = z - ROUNDER
    r = -u - k * LN2_HIGH
    r = r - k * LN2_LOW
    return _exp_near_0(r) * _power_of_two(z)


# (h(t) − t)(t + 3) for the hazard h = φ(t) / Φ(−t), as a polynomial in (t − 3) / (t + 3) in
# [−1, 1]: the Chebyshev series of degree 24 for t in [0, ∞), from values of 40 digits.
_hazard = polynomial(
    1.6985919295826206, -0.8415387946871485, 0.0171631467738744, 0.18569957992995922,
    -0.025434750617745635, -0.05463860631532495, 0.00769976180332786, 0.01843123027582309,
    -0.0009428800837853318, -0.006371585659667035, -0.0006340410208046942, 0.002043730842159964,
    0.0006122936354993604, -0.000542804226230015, -0.0003233714476692881, 9.323649654741375e-05,
    0.00012323852041802257, 3.4803676280053296e-06, -3.422952006130018e-05, -8.774045355240977e-06,
    6.351969926830771e-06, 2.82552516906183e-06, -6.171102516248886e-07, -3.5970786277429157e-07,
    8.718949519122276e-09,
)  # fmt: skip
SQRT2 = math.sqrt(2.0)
DENSITY_0 = 1.0 / math.sqrt(2.0 * math.pi)


@compiled(**ELEMENTWISE)
def thurstone(d, p, weight, slope, curvature):
    """First and second derivative in `d` (M,) of the weighted loss, `P(d) = (1 + erf d) / 2`.

    With `t = √2 |d|`, `h = φ(t)/Φ(−t)` belongs to the document that is behind, `r = φ(t)/Φ(t)` to
    the one ahead. `h − t` is what is approximated, so that `h (h − t)` keeps its digits in tails.
    """
    for m in range(len(d)):
        t = SQRT2 * abs(d[m])
        inverse = 1.0 / (t + 3.0)
        excess = _hazard((t - 3.0) * inverse) * inverse
        h = t + excess
        density = DENSITY_0 * exp_minus(0.5 * t * t)
        r = density * h / (h - density)
        ahead = p[m] if d[m] >= 0.0 else 1.0 - p[m]  # preference for the document ahead
        s = (1.0 - ahead) * h - ahead * r
        slope[m] = weight[m] * SQRT2 * (s if d[m] >= 0.0 else -s)
        curvature[m] = weight[m] * 2.0 * (ahead * r * (t + r) + (1.0 - ahead) * h * excess)


@compiled(**ELEMENTWISE)
def bradley_terry(d, p, weight, slope, curvature):
    """The same for `P(d) = 1 / (1 + exp(−d))`."""
    for m in range(len(d)):
        odds = exp_minus(abs(d[m]))
        behind = odds / (1.0 + odds)  # probability that the document behind is preferred
        ahead = p[m] if d[m] >= 0.0 else 1.0 - p[m]
        s = (1.0 - ahead) - behind
        slope[m] = weight[m] * (s if d[m] >= 0.0 else -s)
        curvature[m] = weight[m] * behind * (1.0 - behind)
