"""How exact and how fast is the rating solver, and how do others do at the same queries?

    python benchmarks/rating.py                  one table, some minutes
    python benchmarks/rating.py --paper-scale    112,000 queries, 44.8 million judgments: see below

The table: 2,000 queries of 100 documents with 4 random cycles each, 400 soft comparisons drawn by
METHOD's noise model of a judge. Solvers take turns, `ROUNDS` times; the time of one is the median,
per query, of a call whose input is ready in the form that it wants. The error is the largest
difference of any Elo from the readable float64 reference of the same model, over the first
`CHECKED` queries. Slow solvers get fewer queries.

- `fixed point`: the damped iteration that the method's reference implementation is described to
  use, in NumPy: learning rate t^−0.125, until the loss changes by less than 1e-4.
- `choix`: `ilsr_pairwise_dense` on the matrix of soft counts, and `opt_pairwise` on comparisons
  rounded to a winner. Bradley–Terry.
- `evalica`: `bradley_terry`, its compiled solver, on comparisons rounded to a winner.
  It cannot take soft preferences, so that its scores have no error to state.

Paper scale: generates the comparisons as Parquet, then runs `zelo rate` on the file as a process of
its own, on one core and on all in turn, `PAPER_ROUNDS` times, and reports the least of its times,
and its peak memory. What it would take on `MANY` cores is arithmetic (Amdahl's law): of the two
times follows what is done by one core alone (numbering ids, writing) and what all share (solving,
reading).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine, save
from numpy.typing import NDArray
from scipy.special import expit, ndtr

from zelo.comparison.graphs import Cycles
from zelo.rating import Comparisons, fit, reference

QUERIES, DOCUMENTS, PRIOR, ROUNDS, CHECKED = 2000, 100, 0.05, 7, 200
PAPER_ROUNDS, MANY = 3, 16
Reals = NDArray[np.float64]


def cycles_with_repeats(rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    """400 comparisons of 100 documents: four cycles, an edge that two share kept twice."""
    sampler = Cycles(cycles=1)
    return np.concatenate([sampler.edges(n, rng) for _ in range(4)])


def judged(queries: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Reals]:
    """Documents and preferences of all comparisons, 400 for each query."""
    rng = np.random.default_rng(seed)
    edges = np.concatenate([cycles_with_repeats(rng, DOCUMENTS) for _ in range(queries)])
    s = rng.normal(0, 1.5, (queries, DOCUMENTS))
    of = np.repeat(np.arange(queries), 400)
    gap = s[of, edges[:, 0]] - s[of, edges[:, 1]] + rng.normal(0, 0.2, len(edges))
    p = 0.98 * expit(gap) + 0.02 * rng.random(len(edges))
    return edges[:, 0], edges[:, 1], p


def fixed_point(i: NDArray[np.int64], j: NDArray[np.int64], p: Reals) -> Reals:
    """Damped fixed-point iteration on the dense matrix of preferences of one query.

    Each document moves by its mean surplus of preference over what its Elo predicts, times
    t^−0.125, until the mean loss changes by less than 1e-4.
    """
    n = DOCUMENTS
    said, asked = np.zeros((n, n)), np.zeros((n, n))
    np.add.at(said, (i, j), p)
    np.add.at(said, (j, i), 1 - p)
    np.add.at(asked, (i, j), 1.0)
    np.add.at(asked, (j, i), 1.0)
    degree, total = asked.sum(1), asked.sum()
    e, before = np.zeros(n), np.inf
    for t in range(1, 10_000):
        win = ndtr(np.sqrt(2) * (e[:, None] - e[None, :]))
        loss = -(said * np.log(np.maximum(win, 1e-300))).sum() / total
        if abs(before - loss) < 1e-4:
            break
        before = loss
        e = e + t**-0.125 * (said - asked * win).sum(1) / degree
        e -= e.mean()
    return e


class Contest:
    """Solvers that take turns at the same queries."""

    def __init__(self) -> None:
        self.i, self.j, self.p = judged(QUERIES, seed=0)
        self.comparisons = Comparisons(np.repeat(np.arange(QUERIES), 400), self.i, self.j, self.p)
        assert self.comparisons.packed
        self.solvers: dict[str, tuple[int, str, Callable[[int], list[Reals]]]] = {}

    def rows(self, q: int) -> slice:
        return slice(q * 400, q * 400 + 400)

    def add(self, name: str, queries: int, model: str, solve: Callable[[int], list[Reals]]) -> None:
        """`solve(queries)` gives the Elos of that many queries; model "" has no reference."""
        self.solvers[name] = (queries, model, solve)

    def add_ours(self) -> None:
        def solve(threads: int, model: str) -> Callable[[int], list[Reals]]:
            def call(queries: int) -> list[Reals]:
                return list(
                    fit(self.comparisons, model, PRIOR, threads=threads).elo.reshape(-1, DOCUMENTS)
                )

            return call

        self.add("zelo, 1 thread", QUERIES, "thurstone", solve(1, "thurstone"))
        self.add("zelo, 2 threads", QUERIES, "thurstone", solve(2, "thurstone"))
        self.add(
            "zelo, 2 threads, Bradley-Terry", QUERIES, "bradley_terry", solve(2, "bradley_terry")
        )

    def add_fixed_point(self) -> None:
        def solve(queries: int) -> list[Reals]:
            return [
                fixed_point(self.i[r], self.j[r], self.p[r]) for r in map(self.rows, range(queries))
            ]

        self.add("fixed point (NumPy)", 200, "thurstone", solve)

    def add_choix(self) -> None:
        import choix

        def matrix(q: int) -> Reals:
            r, wins = self.rows(q), np.zeros((DOCUMENTS, DOCUMENTS))
            np.add.at(wins, (self.i[r], self.j[r]), self.p[r])
            np.add.at(wins, (self.j[r], self.i[r]), 1 - self.p[r])
            return wins

        counts = [matrix(q) for q in range(200)]
        winners = [self.won(q) for q in range(10)]

        def ilsr(queries: int) -> list[Reals]:
            return [choix.ilsr_pairwise_dense(counts[q], alpha=1e-6) for q in range(queries)]

        def opt(queries: int) -> list[Reals]:
            return [
                choix.opt_pairwise(DOCUMENTS, winners[q], alpha=PRIOR / 2) for q in range(queries)
            ]

        self.add("choix ilsr (dense)", 100, "", ilsr)
        self.add("choix opt (rounded)", 10, "", opt)

    def won(self, q: int) -> list[tuple[int, int]]:
        """Winner and loser of each comparison of a query, preferences rounded."""
        r = self.rows(q)
        first = self.p[r] > 0.5
        return list(
            zip(
                np.where(first, self.i[r], self.j[r]).tolist(),
                np.where(first, self.j[r], self.i[r]).tolist(),
                strict=True,
            )
        )

    def add_evalica(self) -> None:
        import evalica
        import pandas

        index = pandas.Index(range(DOCUMENTS))
        prepared = []
        for q in range(400):
            winner, loser = zip(*self.won(q), strict=True)
            prepared.append((winner, loser, [evalica.Winner.X] * 400))

        def solve(queries: int) -> list[Reals]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return [
                    np.asarray(evalica.bradley_terry(*prepared[q], index=index).scores)
                    for q in range(queries)
                ]

        self.add("evalica (rounded)", 400, "", solve)

    def run(self) -> list[dict[str, Any]]:
        for queries, _, solve in self.solvers.values():
            solve(min(queries, 2))  # compile, import, warm up
        seconds: dict[str, list[float]] = {name: [] for name in self.solvers}
        elos: dict[str, list[Reals]] = {}
        for _ in range(ROUNDS):
            for name, (queries, _, solve) in self.solvers.items():
                start = time.perf_counter()
                elos[name] = solve(queries)
                seconds[name].append((time.perf_counter() - start) / queries)
        exact = {
            model: [
                reference.newton(
                    DOCUMENTS, self.i[r], self.j[r], self.p[r], np.ones(400), model, PRIOR
                )
                for r in map(self.rows, range(CHECKED))
            ]
            for model in ("thurstone", "bradley_terry")
        }
        rows = []
        for name, (queries, model, _) in self.solvers.items():
            error = None
            if model:
                error = max(
                    float(np.abs(ours - theirs).max())
                    for ours, theirs in zip(elos[name], exact[model], strict=False)
                )
            rows.append(
                {
                    "solver": name,
                    "queries": queries,
                    "us_per_query": round(statistics.median(seconds[name]) * 1e6, 1),
                    "us_per_query_least": round(min(seconds[name]) * 1e6, 1),
                    "largest_error": error and float(f"{error:.2g}"),
                }
            )
        return rows


def table() -> None:
    contest = Contest()
    contest.add_ours()
    contest.add_fixed_point()
    contest.add_choix()
    contest.add_evalica()
    rows = contest.run()
    ours = next(row for row in rows if row["solver"] == "zelo, 2 threads")["us_per_query"]
    print(f"{QUERIES} queries × {DOCUMENTS} documents × 400 comparisons; {machine()}")
    print(f"{'solver':<32}{'µs per query':>14}{'least':>10}{'largest error':>16}{'× zelo':>9}")
    for row in rows:
        row["times_zelo_2_threads"] = round(row["us_per_query"] / ours, 1)
        error = "-" if row["largest_error"] is None else f"{row['largest_error']:.1e}"
        print(
            f"{row['solver']:<32}{row['us_per_query']:>14,.1f}{row['us_per_query_least']:>10,.1f}"
            f"{error:>16}{row['times_zelo_2_threads']:>9.1f}"
        )
    save("rating.csv", rows)


def paper_scale(queries: int) -> None:
    """Parquet to Parquet by `zelo rate`, in a process of its own, so that its memory is its own."""
    cores = sorted(os.sched_getaffinity(0))
    rows: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        path = Path(folder) / "comparisons.parquet"
        print(f"generating {queries:,} queries, {queries * 400:,} comparisons ...", flush=True)
        generate(path, queries)
        zelo_rate(path, cores)  # compiles what is not compiled yet, and has the file in memory
        for _ in range(PAPER_ROUNDS):
            for count in sorted({1, len(cores)}):
                found = {
                    "queries": queries,
                    "comparisons": queries * 400,
                    "cores": count,
                    "how": f"measured, least of {PAPER_ROUNDS}",
                    **zelo_rate(path, cores[:count]),
                }
                rows[count] = min(rows.get(count, found), found, key=lambda row: row["seconds"])
    if len(cores) > 1:
        one, every = rows[1]["seconds"], rows[len(cores)]["seconds"]
        shared = max(one - every, 0) / (1 - 1 / len(cores))
        rows[MANY] = {
            **dict.fromkeys(rows[1]),
            "queries": queries,
            "comparisons": queries * 400,
            "cores": MANY,
            "how": f"arithmetic: {one - shared:.1f} s + {shared:.1f} s / {MANY}",
            "seconds": round(one - shared + shared / MANY, 1),
        }
    for row in rows.values():
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    save("rating_paper_scale.csv", list(rows.values()))


def zelo_rate(path: Path, cores: list[int]) -> dict[str, Any]:
    """What `zelo rate` takes of a file, on these cores alone."""
    command = [str(Path(sys.executable).with_name("zelo")), "rate", str(path)]
    free = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # inherited by what is started
    try:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    finally:
        os.sched_setaffinity(0, free)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with {status}")
    folder = path.with_name(f"{path.stem}.ratings")
    written = (folder / "ratings.parquet").stat().st_size
    shutil.rmtree(folder)
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_gib": round(used.ru_maxrss / 2**20, 2),
        "read_mib": round(path.stat().st_size / 2**20),
        "written_mib": round(written / 2**20),
    }


def generate(path: Path, queries: int) -> None:
    """Comparisons by id, in row groups of 2,500 queries."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    writer = None
    for first in range(0, queries, 2500):
        count = min(2500, queries - first)
        i, j, p = judged(count, seed=first)
        number = np.repeat(np.arange(first, first + count), 400)

        def ids(letter: str, numbers: NDArray[np.int64]) -> Any:
            values, place = np.unique(numbers, return_inverse=True)
            names = pa.array([f"{letter}{value:08d}" for value in values])
            return pa.DictionaryArray.from_arrays(pa.array(place.astype(np.int32)), names)

        columns = {
            "query_id": ids("q", number),
            "doc_a": ids("d", number * DOCUMENTS + i),
            "doc_b": ids("d", number * DOCUMENTS + j),
            "p": p,
        }
        block = pa.table(columns)
        block = block.cast(
            pa.schema([(n, pa.string() if n != "p" else pa.float64()) for n in columns])
        )
        writer = writer or pq.ParquetWriter(path, block.schema, compression="zstd")
        writer.write_table(block)
    if writer:
        writer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--paper-scale", action="store_true")
    parser.add_argument("--queries", type=int, default=112_000, help="of --paper-scale")
    given = parser.parse_args()
    if given.paper_scale:
        paper_scale(given.queries)
    else:
        table()
