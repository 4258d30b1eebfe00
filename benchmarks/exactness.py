"""Does the solver keep its promise, and by how much?

    python benchmarks/exactness.py                    1,000 queries of each row, some minutes
    python benchmarks/exactness.py --queries 100      a look

A fit says how far its Elos may be from the minimum, in standard errors (`Fit.error`). Here the
minimum is found to 30 digits: Newton steps whose gradients are computed with 45. Queries are small
and of the shapes that make it hard: chains, stars, pieces that nothing connects, two clusters that
one comparison of little weight ties, and random pairs; preferences are drawn, or all 0 or 1. For
every model, prior and shape: the largest distance of an Elo in Elo and as a share of what was
promised for it, the largest promise, and how many queries did not converge. Every query is also
rated with each comparison turned round and made two of half its weight, which has the same minimum.
Exit status 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import mpmath
import numpy as np
from machine import machine, save
from numpy.typing import NDArray

from zelo.rating import Comparisons, fit, likelihood, standard_errors
from zelo.rating.solver import MODELS

PRIORS = (1e-6, 1e-3, 0.05, 1.0)
SHAPES = ("pairs", "chain", "star", "pieces", "thread")
Reals = NDArray[np.float64]


def drawn(shape: str, rng: np.random.Generator) -> dict[str, Any]:
    """Comparisons of one query."""
    n = int(rng.integers(3, 10))
    if shape == "pairs":
        i = rng.integers(n, size=12)
        j = (i + rng.integers(1, n, size=12)) % n
    elif shape == "chain":
        i, j = np.arange(n - 1), np.arange(1, n)
    elif shape == "star":
        i, j = np.zeros(n - 1, int), np.arange(1, n)
    else:  # two parts, in each all with all
        half = n // 2
        i, j = np.triu_indices(n, 1)
        apart = (i < half) & (j >= half)
        i, j = i[~apart], j[~apart]
    weight = rng.choice([1.0, 1.0, 3.0, 20.0], len(i))
    if shape == "thread":
        i, j, weight = np.r_[i, 0], np.r_[j, n - 1], np.r_[weight, 10 ** rng.uniform(-3, 0)]
    p = rng.random(len(i)) if rng.random() < 0.6 else rng.integers(0, 2, len(i)).astype(float)
    return {"i": i, "j": j, "p": p, "weight": weight, "size": n}


def exact(row: dict[str, Any], near: Reals, model: str, prior: float) -> list[mpmath.mpf]:
    """The minimum (n,), from Elos near it."""
    i, j, n = row["i"], row["j"], row["size"]
    matrix = likelihood.derivatives(near, i, j, row["p"], row["weight"], model, prior)[2]
    inverse = np.linalg.inv(matrix)
    with mpmath.workdps(45):
        elo = [mpmath.mpf(e) for e in near]
        mean = mpmath.fsum(elo) / n
        elo = [e - mean for e in elo]
        for _ in range(60):
            gradient = [prior * e for e in elo]
            for a, b, p, w in zip(i, j, row["p"], row["weight"], strict=True):
                slope = w * slope_of(elo[a] - elo[b], mpmath.mpf(p), model)
                gradient[a] += slope
                gradient[b] -= slope
            size = max(abs(g) for g in gradient)
            if size < mpmath.mpf(10) ** -30 * prior:
                return elo
            scaled = inverse @ np.array([float(g / size) for g in gradient])
            elo = [e - size * mpmath.mpf(s) for e, s in zip(elo, scaled, strict=True)]
    raise AssertionError(f"no minimum: {row}")


def slope_of(d: mpmath.mpf, p: mpmath.mpf, model: str) -> mpmath.mpf:
    """First derivative of the loss of a comparison."""
    if model == "bradley_terry":
        return 1 / (1 + mpmath.exp(-d)) - p
    density = 2 * mpmath.exp(-d * d) / mpmath.sqrt(mpmath.pi)
    return (1 - p) * density / mpmath.erfc(d) - p * density / mpmath.erfc(-d)


def halved(c: Comparisons) -> Comparisons:
    """Each comparison turned round and made two of half its weight."""
    query, p, weight = np.r_[c.query, c.query], np.r_[1 - c.p, 1 - c.p], np.r_[c.weight, c.weight]
    return Comparisons(query, np.r_[c.j, c.j], np.r_[c.i, c.i], p, weight / 2, c.sizes)


def tried(model: str, prior: float, shape: str, queries: int) -> dict[str, Any]:
    """A row of the results."""
    rng = np.random.default_rng([MODELS.index(model), PRIORS.index(prior), SHAPES.index(shape)])
    rows = [drawn(shape, rng) for _ in range(queries)]
    of = np.repeat(np.arange(queries), [len(row["i"]) for row in rows])
    i, j, p, weight = (
        np.concatenate([r[name] for r in rows]) for name in ("i", "j", "p", "weight")
    )
    c = Comparisons(of, i, j, p, weight, [row["size"] for row in rows])
    far, share, promise, unconverged = 0.0, 0.0, 0.0, 0
    truth: list[list[mpmath.mpf]] = []
    for problem in (c, halved(c)):
        fitted = fit(problem, model, prior)
        stderr = standard_errors(problem, fitted.elo, model, prior)
        unconverged += int((~fitted.converged).sum())
        promise = max(promise, float(fitted.error.max()))
        truth = truth or [exact(row, fitted.of(q), model, prior) for q, row in enumerate(rows)]
        for q, elos in enumerate(truth):
            place = slice(c.offsets[q], c.offsets[q + 1])
            off = np.array([float(e - x) for e, x in zip(fitted.of(q).tolist(), elos, strict=True)])
            far = max(far, float(np.abs(off).max()))
            share = max(share, float((np.abs(off) / (fitted.error[q] * stderr[place])).max()))
    return {
        "model": model, "prior": prior, "shape": shape, "queries": queries,
        "farthest_elo": f"{far:.1e}", "largest_promise": f"{promise:.1e}",
        "largest_share_of_promise": round(share, 3), "not_converged": unconverged,
    }  # fmt: skip


def table(queries: int) -> Iterator[dict[str, Any]]:
    """All rows, printed as they come."""
    for model in MODELS:
        for prior in PRIORS:
            for shape in SHAPES:
                row = tried(model, prior, shape, queries)
                print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)
                yield row


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--queries", type=int, default=1000)
    given = parser.parse_args()
    print(machine())
    found = list(table(given.queries))
    if given.queries >= 1000:
        save("exactness.csv", found)
    sys.exit(any(row["largest_share_of_promise"] > 1 for row in found))
