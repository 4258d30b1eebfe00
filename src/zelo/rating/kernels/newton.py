"""Elos by inexact Newton steps, matrix-free, one query after another.

Where the time goes for a query of 100 documents and 400 comparisons, and what was done about it:
the special functions are polynomials without branches, so that the compiler evaluates four
comparisons at once; the Newton system is never formed, but solved by preconditioned conjugate
gradients (random regular graphs are well conditioned, so each step gains a factor of about 2.6);
the start is a weighted least-squares fit to the preferences, which saves two Newton steps; and each
system is solved only as far as the next step can use. Steps are accepted by the norm of the
gradient, so that the loss itself, with its logarithms, is never needed.
"""

from __future__ import annotations

import math

import numpy as np

from zelo.rating.kernels.compiling import APART, ELEMENTWISE, SUMMING, compiled
from zelo.rating.kernels.likelihoods import THURSTONE, bradley_terry, thurstone
from zelo.rating.kernels.linear_algebra import (
    collect,
    conjugate_gradients,
    dense_solve,
    dot,
    residual_of,
)

MAX_STEPS = 200
MAX_HALVINGS = 40


@compiled(**ELEMENTWISE)
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


@compiled(**SUMMING)
def bend_per_length(model, d, prior):
    """The bend of `likelihood.error_bounds` for a step of length 1, at the differences `d` (M,)."""
    steepest = 1.0
    if model == THURSTONE:
        farthest = 0.0
        for m in range(len(d)):
            farthest = max(farthest, abs(d[m]))
        steepest += 2.0 * farthest
    return steepest * math.sqrt(2.0 / prior)


@compiled(**SUMMING)
def solve(
    first, last, model, row_offsets, offsets, i_, j_, p_, weight_, known_,
    prior, tolerance, warm, start_curvature, start_slope, elo, iterations, errors, heaviest,
):  # fmt: skip
    """Elos of queries `first`..`last` − 1 into `elo`; see `solver.fit`.

    Steps solve `|H s + g| ≤ η |g|` and are halved until `|g|` falls in proportion: an inexact
    Newton method with backtracking, convergent from any start because the Hessian is at least
    `prior` everywhere (Eisenstat and Walker, 1994). `start_*` tabulate curvature and slope of the
    saturated fit over p in [0, 1]; with `warm`, `elo` holds the start instead. `errors` are the
    bounds of `likelihood.error_bounds`, `heaviest` the largest total weights of a document.
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
