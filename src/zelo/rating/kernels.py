"""The solver compiled for CPUs: inexact Newton steps, matrix-free, one query after another.

Where the time goes for a query of 100 documents and 400 comparisons, and what was done about it:
the special functions are polynomials without branches, so that the compiler evaluates four
comparisons at once; the Newton system is never formed, but solved by preconditioned conjugate
gradients (random regular graphs are well conditioned, so each step gains a factor of about 2.6);
the start is a weighted least-squares fit to the preferences, which saves two Newton steps; and each
system is solved only as far as the next step can use. Steps are accepted by the norm of the
gradient, so that the loss itself, with its logarithms, is never needed.

Sizes: M comparisons and n documents of one query. Nothing here checks its input: `solver.py` does.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from zelo.progress import tell

THURSTONE, BRADLEY_TERRY = 0, 1
MAX_STEPS = 200
MAX_HALVINGS = 40
# Between arrays in one piece of memory. Compiled loops check whether their arrays overlap, take
# those that touch for such, and then add in another order: the last bits of a query's Elos would
# depend on the size of the largest query beside it.
APART = 64


def kept() -> bool:
    """Whether there is a folder to keep compiled code in; said where there is none."""

    def some(x):
        return x

    try:
        njit(cache=True)(some)
    except RuntimeError:  # beside this file, nor in the user's cache
        tell(
            "no folder can be written that keeps compiled code: what rates is compiled anew, "
            "seconds; NUMBA_CACHE_DIR=FOLDER names one"
        )
        return False
    return True


# "contract" allows fused multiply-adds; "reassoc" lets sums over documents be taken in lanes.
ELEMENTWISE = {"fastmath": {"contract"}, "error_model": "numpy", "cache": kept(), "nogil": True}
SUMMING = {**ELEMENTWISE, "fastmath": {"contract", "reassoc", "nsz"}}


def polynomial(*coefficients: float) -> Any:
    """A compiled function of x: Σ coefficients[k] xᵏ by Estrin's scheme, unrolled.

    A loop over a tuple would be left as a loop, and keep the loop around it from using lanes.
    """

    @intrinsic
    def evaluate(typing_context, x):
        def generate(context, builder, signature, arguments):
            power, terms = arguments[0], [ir.Constant(ir.DoubleType(), c) for c in coefficients]
            while len(terms) > 1:
                products = [builder.fmul(c, power, flags=("contract",)) for c in terms[1::2]]
                sums = [
                    builder.fadd(c, product, flags=("contract",))
                    for c, product in zip(terms[::2], products, strict=False)
                ]
                terms = sums + terms[len(terms) - len(terms) % 2 :]
                power = builder.fmul(power, power)
            return terms[0]

        return types.float64(types.float64), generate

    return evaluate


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


@njit(**ELEMENTWISE)
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


@njit(**ELEMENTWISE)
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


@njit(**ELEMENTWISE)
def bradley_terry(d, p, weight, slope, curvature):
    """The same for `P(d) = 1 / (1 + exp(−d))`."""
    for m in range(len(d)):
        odds = exp_minus(abs(d[m]))
        behind = odds / (1.0 + odds)  # probability that the document behind is preferred
        ahead = p[m] if d[m] >= 0.0 else 1.0 - p[m]
        s = (1.0 - ahead) - behind
        slope[m] = weight[m] * (s if d[m] >= 0.0 else -s)
        curvature[m] = weight[m] * behind * (1.0 - behind)


@njit(**ELEMENTWISE)
def derivatives(model, e, i, j, p, weight, known, prior, d, slope, curvature, gradient, diagonal):
    """Curvature per comparison; gradient and diagonal of the Hessian per document.

    `known` (M,), or (0,) for none, is added to the differences `e_i − e_j`.
    """
    for m in range(len(p)):
        d[m] = e[i[m]] - e[j[m]]
    for m in range(len(known)):
        d[m] += known[m]
    if model == THURSTONE:
        thurstone(d, p, weight, slope, curvature)
    else:
        bradley_terry(d, p, weight, slope, curvature)
    collect(e, i, j, prior, slope, curvature, gradient, diagonal)


@njit(**ELEMENTWISE)
def collect(e, i, j, prior, slope, curvature, gradient, diagonal):
    """Sum slopes and curvatures of comparisons over their documents, and add the prior's."""
    for a in range(len(e)):
        gradient[a] = prior * e[a]
        diagonal[a] = prior
    for m in range(len(slope)):
        a, b, s, c = i[m], j[m], slope[m], curvature[m]
        gradient[a] += s
        gradient[b] -= s
        diagonal[a] += c
        diagonal[b] += c


@njit(**ELEMENTWISE)
def hessian_times(curvature, i, j, prior, x, y):
    """`y = H x`: the prior and a weighted graph Laplacian."""
    for a in range(len(x)):
        y[a] = prior * x[a]
    for m in range(len(curvature)):
        a, b = i[m], j[m]
        flow = curvature[m] * (x[a] - x[b])
        y[a] += flow
        y[b] -= flow


@njit(**SUMMING)
def dot(x, y):
    """Σ x y."""
    total = 0.0
    for a in range(len(x)):
        total += x[a] * y[a]
    return total


@njit(**SUMMING)
def precondition(r, inverse, inverse_sum, z):
    """`z = D⁻¹ r`, moved to zero sum along `D⁻¹ 1`; returns `r · z`.

    The prior alone holds the sum of the Elos, an eigenvalue far below the others; on the zero-sum
    subspace it is out of the way.
    """
    total = 0.0
    for a in range(len(r)):
        z[a] = r[a] * inverse[a]
        total += z[a]
    shift = total / inverse_sum
    product = 0.0
    for a in range(len(r)):
        z[a] -= shift * inverse[a]
        product += r[a] * z[a]
    return product


@njit(**SUMMING)
def conjugate_gradients(curvature, i, j, prior, diagonal, gradient, enough, x, r, z, q, y, inverse):
    """Solve `H x = −gradient` until `|residual|² ≤ enough`; whether that was reached."""
    n = len(gradient)
    inverse_sum = 0.0
    for a in range(n):
        inverse[a] = 1.0 / diagonal[a]
        inverse_sum += inverse[a]
        x[a] = 0.0
        r[a] = -gradient[a]
    product = precondition(r, inverse, inverse_sum, z)
    for a in range(n):
        q[a] = z[a]
    for _ in range(2 * n + 20):
        hessian_times(curvature, i, j, prior, q, y)
        bend = dot(q, y)
        if not bend > 0.0:
            return False
        alpha = product / bend
        residual = 0.0
        for a in range(n):
            x[a] += alpha * q[a]
            r[a] -= alpha * y[a]
            residual += r[a] * r[a]
        if residual <= enough:
            return True
        following = precondition(r, inverse, inverse_sum, z)
        beta = following / product
        product = following
        for a in range(n):
            q[a] = z[a] + beta * q[a]
    return False


@njit(**SUMMING)
def cholesky(matrix):
    """Lower triangle of a symmetric matrix (n, n), replaced by its factor L with `L Lᵀ = matrix`.

    A pivot that rounding made not positive is set to the smallest that its column can resolve.
    """
    n = len(matrix)
    for a in range(n):
        for b in range(a):
            value = matrix[a, b] - dot(matrix[a, :b], matrix[b, :b])
            matrix[a, b] = value / matrix[b, b]
        before = matrix[a, a]
        matrix[a, a] = math.sqrt(max(before - dot(matrix[a, :a], matrix[a, :a]), 1e-16 * before))


@njit(**SUMMING)
def dense_hessian(curvature, i, j, prior, matrix):
    """The Hessian (n, n) of one query."""
    matrix[:] = 0.0
    for a in range(len(matrix)):
        matrix[a, a] = prior
    for m in range(len(curvature)):
        a, b, c = i[m], j[m], curvature[m]
        matrix[a, a] += c
        matrix[b, b] += c
        matrix[a, b] -= c
        matrix[b, a] -= c


@njit(**SUMMING)
def dense_solve(curvature, i, j, prior, gradient, x):
    """Solve `H x = −gradient` by factoring, for systems that conjugate gradients cannot."""
    n = len(gradient)
    matrix = np.empty((n, n))
    dense_hessian(curvature, i, j, prior, matrix)
    cholesky(matrix)
    for a in range(n):
        x[a] = (-gradient[a] - dot(matrix[a, :a], x[:a])) / matrix[a, a]
    for a in range(n - 1, -1, -1):
        x[a] /= matrix[a, a]
        for b in range(a):
            x[b] -= matrix[a, b] * x[a]


@njit(**SUMMING)
def bend_per_length(model, d, prior):
    """The bend of `reference.error_bounds` for a step of length 1, at the differences `d` (M,)."""
    steepest = 1.0
    if model == THURSTONE:
        farthest = 0.0
        for m in range(len(d)):
            farthest = max(farthest, abs(d[m]))
        steepest += 2.0 * farthest
    return steepest * math.sqrt(2.0 / prior)


@njit(**SUMMING)
def residual_of(curvature, i, j, prior, gradient, x, r):
    """`r = −gradient − H x`: what a solution leaves."""
    hessian_times(curvature, i, j, prior, x, r)
    for a in range(len(x)):
        r[a] = -gradient[a] - r[a]


@njit(**SUMMING)
def solve(
    first, last, model, row_offsets, offsets, i_, j_, p_, weight_, known_,
    prior, tolerance, warm, start_curvature, start_slope, elo, iterations, errors, heaviest,
):  # fmt: skip
    """Elos of queries `first`..`last` − 1 into `elo`; see `solver.fit`.

    Steps solve `|H s + g| ≤ η |g|` and are halved until `|g|` falls in proportion: an inexact
    Newton method with backtracking, convergent from any start because the Hessian is at least
    `prior` everywhere (Eisenstat and Walker, 1994). `start_*` tabulate curvature and slope of the
    saturated fit over p in [0, 1]; with `warm`, `elo` holds the start instead. `errors` are the
    bounds of `reference.error_bounds`, `heaviest` the largest total weights of a document.
    """
    most_rows, most_documents = 0, 0
    for q in range(first, last):
        most_rows = max(most_rows, row_offsets[q + 1] - row_offsets[q])
        most_documents = max(most_documents, offsets[q + 1] - offsets[q])
    rows, documents = np.empty((3, most_rows + APART)), np.empty((10, most_documents + APART))
    for q in range(first, last):
        low, high, n = row_offsets[q], row_offsets[q + 1], offsets[q + 1] - offsets[q]
        i, j, p, weight = i_[low:high], j_[low:high], p_[low:high], weight_[low:high]
        known = known_[low:high]
        d, slope, curvature = rows[0, : high - low], rows[1, : high - low], rows[2, : high - low]
        e, gradient, diagonal = documents[0, :n], documents[1, :n], documents[2, :n]
        x, r, z, direction = documents[3, :n], documents[4, :n], documents[5, :n], documents[6, :n]
        y, inverse, kept = documents[7, :n], documents[8, :n], documents[9, :n]
        for a in range(n):
            y[a] = 0.0
        for m in range(high - low):
            y[i[m]] += weight[m]
            y[j[m]] += weight[m]
        heaviest[q] = 0.0
        for a in range(n):
            heaviest[q] = max(heaviest[q], y[a])
        if warm:
            mean = 0.0
            for a in range(n):
                e[a] = elo[offsets[q] + a]
                mean += e[a]
            for a in range(n):
                e[a] -= mean / n
        else:
            cells = len(start_slope) - 1
            for a in range(n):
                e[a] = 0.0
            for m in range(high - low):
                f = p[m] * cells
                k = min(int(f), cells - 1)
                f -= k
                slope[m] = weight[m] * (start_slope[k] + f * (start_slope[k + 1] - start_slope[k]))
                curvature[m] = weight[m] * (
                    start_curvature[k] + f * (start_curvature[k + 1] - start_curvature[k])
                )
            for m in range(len(known)):
                slope[m] += curvature[m] * known[m]
            collect(e, i, j, prior, slope, curvature, gradient, diagonal)
            square = dot(gradient, gradient)
            if square > 0.0:
                conjugate_gradients(curvature, i, j, prior, diagonal, gradient, 1e-3 * square,
                                    x, r, z, direction, y, inverse)  # fmt: skip
                for a in range(n):
                    e[a] = x[a]
        derivatives(
            model, e, i, j, p, weight, known, prior, d, slope, curvature, gradient, diagonal
        )
        square = dot(gradient, gradient)
        eta2 = 1e-2
        error, steps = 0.0, 0
        while True:
            if not square > 0.0:
                error = 0.0
                break
            # Most is for what the system leaves, the rest for what curvatures change on the way.
            enough = max(0.64 * tolerance * tolerance * prior, eta2 * square)
            if not conjugate_gradients(curvature, i, j, prior, diagonal, gradient, enough,
                                       x, r, z, direction, y, inverse):  # fmt: skip
                dense_solve(curvature, i, j, prior, gradient, x)
                residual_of(curvature, i, j, prior, gradient, x, r)
            left = math.sqrt(dot(r, r) / prior)
            decrement = math.sqrt(max(-dot(gradient, x) - dot(r, x), 0.0)) + left
            if left <= tolerance or steps == MAX_STEPS:  # else neither bound can do
                bend = bend_per_length(model, d, prior) * decrement
                error = 1.2 * decrement if bend <= 0.1 else math.inf
                if error <= tolerance or steps == MAX_STEPS:
                    break
                if bend <= 0.1 and 1.1 * left + bend * decrement <= tolerance:
                    steps += 1
                    error = 1.1 * left + bend * decrement
                    for a in range(n):
                        e[a] += x[a]
                    break
            steps += 1
            for a in range(n):
                kept[a] = e[a]
            step, following = 1.0, square
            for _ in range(MAX_HALVINGS):
                for a in range(n):
                    e[a] = kept[a] + step * x[a]
                derivatives(
                    model, e, i, j, p, weight, known, prior, d, slope, curvature, gradient, diagonal
                )
                following = dot(gradient, gradient)
                if following <= (1.0 - 1e-4 * step) * square:
                    break
                step /= 2.0
            if not following < square:  # rounding: nothing is gained any more
                for a in range(n):
                    e[a] = kept[a]
                bend = bend_per_length(model, d, prior) * decrement
                error = 1.2 * decrement if bend <= 0.1 else math.inf
                break
            eta2 = min(1e-2, (following / square) ** 2)
            square = following
        mean = 0.0
        for a in range(n):
            mean += e[a] / n
        for a in range(n):
            elo[offsets[q] + a] = e[a] - mean
        iterations[q] = steps
        errors[q] = error


@njit(**SUMMING)
def standard_errors(
    first, last, model, row_offsets, offsets, i_, j_, p_, weight_, known_, prior, elo, stderr
):  # fmt: skip
    """Square roots of the diagonal of the inverse Hessian on the zero-sum subspace, per document.

    The constant vector is an eigenvector of the Hessian (eigenvalue: the prior). Raising that
    eigenvalue to the size of the others before factoring, and taking its share out again, avoids
    the cancellation that a weak prior would cause.
    """
    most_rows, most_documents = 0, 0
    for q in range(first, last):
        most_rows = max(most_rows, row_offsets[q + 1] - row_offsets[q])
        most_documents = max(most_documents, offsets[q + 1] - offsets[q])
    rows, documents = np.empty((3, most_rows + APART)), np.empty((2, most_documents + APART))
    for q in range(first, last):
        low, high, n = row_offsets[q], row_offsets[q + 1], offsets[q + 1] - offsets[q]
        i, j, p, weight = i_[low:high], j_[low:high], p_[low:high], weight_[low:high]
        known = known_[low:high]
        curvature = rows[2, : high - low]
        e, gradient, diagonal = elo[offsets[q] : offsets[q + 1]], documents[0, :n], documents[1, :n]
        d, slope = rows[0, : high - low], rows[1, : high - low]
        derivatives(
            model, e, i, j, p, weight, known, prior, d, slope, curvature, gradient, diagonal
        )
        stiff = 0.0
        for a in range(n):
            stiff = max(stiff, diagonal[a])
        matrix = np.empty((n, n))
        dense_hessian(curvature, i, j, prior, matrix)
        for a in range(n):
            for b in range(n):
                matrix[a, b] += stiff / n
        cholesky(matrix)
        # Rows of L⁻¹ take the place of rows of L; their squares sum to the inverse's diagonal.
        variance = gradient
        for a in range(n):
            variance[a] = 0.0
        work = diagonal
        for a in range(n):
            for b in range(a):
                work[b] = 0.0
            for k in range(a):
                factor = matrix[a, k]
                for b in range(k + 1):
                    work[b] -= factor * matrix[k, b]
            pivot = 1.0 / matrix[a, a]
            for b in range(a):
                matrix[a, b] = work[b] * pivot
                variance[b] += matrix[a, b] * matrix[a, b]
            matrix[a, a] = pivot
            variance[a] += pivot * pivot
        for a in range(n):
            stderr[offsets[q] + a] = math.sqrt(max(variance[a] - 1.0 / (n * (prior + stiff)), 0.0))


@njit(**ELEMENTWISE)
def number_documents(query, a, b, codes, i, j, found):
    """Number the documents of each query from 0 in the order in which they are first named.

    `query` (M,) ascends; `a`, `b` (M,) are codes below `codes` of what is compared. Fills `i`, `j`
    (M,) with numbers, and `found` (2 M,) with the code of each numbered document, query after
    query; returns how many there are.
    """
    owner, number = np.full(codes, -1), np.empty(codes, np.int64)
    total, first = 0, 0
    for m in range(len(query)):
        if m == 0 or query[m] != query[m - 1]:
            first = total
        for code in (a[m], b[m]):
            if owner[code] != query[m]:
                owner[code] = query[m]
                number[code] = total - first
                found[total] = code
                total += 1
        i[m], j[m] = number[a[m]], number[b[m]]
    return total
