"""Is the batched solver exact, and how much faster than a good general-purpose one?

Rates queries of 100 documents with 4 random cycles (400 comparisons, METHOD's setting) by
`zelo.rating.solver.fit` and by scipy's L-BFGS-B with the analytic gradient, one query after
another. The two are timed in turn, five times.
"""

from __future__ import annotations

import csv
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_ndtr

from zelo.comparison.graphs import Cycles
from zelo.rating.likelihood import thurstone
from zelo.rating.solver import fit

QUERIES, DOCUMENTS, PRIOR, ROUNDS = 64, 100, 0.05, 5
Problem = tuple[NDArray[np.int64], NDArray[np.float64]]


def problems() -> list[Problem]:
    rng = np.random.default_rng(0)
    made = []
    for _ in range(QUERIES):
        edges = Cycles(cycles=4).edges(DOCUMENTS, rng)
        s = rng.normal(0, 1.5, DOCUMENTS)
        made.append(
            (edges, expit(s[edges[:, 0]] - s[edges[:, 1]] + rng.normal(0, 0.2, len(edges))))
        )
    return made


def by_zelo(given: list[Problem]) -> NDArray[np.float64]:
    rows = np.concatenate(
        [np.column_stack([np.full(len(edges), q), edges]) for q, (edges, _) in enumerate(given)]
    )
    query, i, j = torch.from_numpy(rows).T.contiguous()
    p = torch.from_numpy(np.concatenate([p for _, p in given]))
    sizes = torch.full((len(given),), DOCUMENTS)
    return fit(sizes, query, i, j, p, thurstone, PRIOR).elo.numpy()


def by_scipy(given: list[Problem]) -> NDArray[np.float64]:
    def loss(e: NDArray[np.float64], edges: NDArray[np.int64], p: NDArray[np.float64]):
        x = np.sqrt(2) * (e[edges[:, 0]] - e[edges[:, 1]])
        win, lose = log_ndtr(x), log_ndtr(-x)
        density = -0.5 * x * x - 0.5 * np.log(2 * np.pi)
        slope = np.sqrt(2) * ((1 - p) * np.exp(density - lose) - p * np.exp(density - win))
        gradient = np.bincount(edges[:, 0], slope, DOCUMENTS) - np.bincount(
            edges[:, 1], slope, DOCUMENTS
        )
        value = -(p * win + (1 - p) * lose).sum() + PRIOR / 2 * e @ e
        return value, gradient + PRIOR * e

    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000}
    return np.stack(
        [
            minimize(loss, np.zeros(DOCUMENTS), g, "L-BFGS-B", jac=True, options=options).x
            for g in given
        ]
    )


def main() -> None:
    given = problems()
    seconds: dict[str, list[float]] = {"zelo": [], "scipy": []}
    elos = {}
    for _ in range(ROUNDS):
        for name, solve in (("zelo", by_zelo), ("scipy", by_scipy)):
            start = time.perf_counter()
            elos[name] = solve(given)
            seconds[name].append(time.perf_counter() - start)
    centred = elos["scipy"] - elos["scipy"].mean(axis=1, keepdims=True)
    difference = np.abs(elos["zelo"] - centred).max()
    ratio = statistics.median(b / a for a, b in zip(seconds["zelo"], seconds["scipy"], strict=True))
    rows = [
        {"solver": name, "queries_per_second": round(QUERIES / statistics.median(taken), 1)}
        for name, taken in seconds.items()
    ]
    for row in rows:
        print(f"{row['solver']:>6}  {row['queries_per_second']:8.1f} queries/s")
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
    print(f"scipy takes {ratio:.1f} times as long; largest difference of an Elo {difference:.1e}")
    print(f"({QUERIES} queries × {DOCUMENTS} documents, median of {ROUNDS} rounds; {machine})")
    with (Path(__file__).parent / "results" / "rating_solver.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "ratio", "largest_difference", "machine"])
        writer.writeheader()
        extra = {
            "ratio": round(ratio, 2),
            "largest_difference": f"{difference:.1e}",
            "machine": machine,
        }
        writer.writerows({**row, **extra} for row in rows)


if __name__ == "__main__":
    main()
