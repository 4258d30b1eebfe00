"""The Hessian of one query, a weighted graph Laplacian and the prior, and systems with it."""

from __future__ import annotations

import math

import numpy as np

from zelo.rating.kernels.compiling import ELEMENTWISE, SUMMING, compiled


@compiled(**ELEMENTWISE)
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


@compiled(**ELEMENTWISE)
def hessian_times(curvature, i, j, prior, x, y):
    """`y = H x`: the prior and a weighted graph Laplacian."""
    for a in range(len(x)):
        y[a] = prior * x[a]
    for m in range(len(curvature)):
        a, b = i[m], j[m]
        flow = curvature[m] * (x[a] - x[b])
        y[a] += flow
        y[b] -= flow


@compiled(**SUMMING)
def dot(x, y):
    """Σ x y."""
    total = 0.0
    for a in range(len(x)):
        total += x[a] * y[a]
    return total


@compiled(**SUMMING)
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


@compiled(**SUMMING)
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


@compiled(**SUMMING)
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


@compiled(**SUMMING)
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


@compiled(**SUMMING)
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


@compiled(**SUMMING)
def residual_of(curvature, i, j, prior, gradient, x, r):
    """`r = −gradient − H x`: what a solution leaves."""
    hessian_times(curvature, i, j, prior, x, r)
    for a in range(len(x)):
        r[a] = -gradient[a] - r[a]
