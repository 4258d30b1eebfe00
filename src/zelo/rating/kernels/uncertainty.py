"""Standard errors of the Elos of a fit."""

from __future__ import annotations

import math

import numpy as np

from zelo.rating.kernels.compiling import APART, SUMMING, compiled
from zelo.rating.kernels.linear_algebra import cholesky, dense_hessian
from zelo.rating.kernels.newton import derivatives


@compiled(**SUMMING)
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
