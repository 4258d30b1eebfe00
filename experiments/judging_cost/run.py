"""What do Elos cost by comparisons of two, by orders of whole blocks, and by grades?

    python experiments/judging_cost/run.py [--queries 100] [--workers 2]

Judges with known hidden scores answer under published and swept noise; each way of asking is held
against the hidden scores, per input token and per dollar. Writes results.csv and two pictures
beside this file; see README.md.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import kendalltau
from threadpoolctl import threadpool_limits

from zelo.artifacts import write_csv
from zelo.comparison.adaptive import Informative
from zelo.comparison.blocks import Blocks, cycles_through
from zelo.comparison.graphs import Cycles
from zelo.comparison.sampler import Edges
from zelo.data.token_estimate import estimated_tokens
from zelo.judging.api import LABEL_TOKENS
from zelo.judging.prompt import sections
from zelo.progress import track
from zelo.rating import Comparisons, fit, fit_rankings
from zelo.reporting.plots import STYLE
from zelo.seeding import stream

Reals = NDArray[np.float64]
HERE, N, TOP = Path(__file__).parent, 100, 10
QUERY = 15  # tokens
DOCUMENTS = (100, 250, 500, 1000)  # tokens of one
PRICE = {"input": 0.4, "output": 1.6}  # USD per million tokens: gpt-4.1-mini, seen 2026-08-05
WRITTEN = 60  # tokens of reasons and a score; an order has LABEL_TOKENS for each document
PRIOR = 0.05
POPULATIONS = ("even", "realistic")
CYCLES = (1, 2, 4, 8)
SIZES, TIMES = (5, 10, 20, 34, 50), (1.5, 1.7, 1.8, 2, 3, 4, 6)
LIST_NOISE = (1.0, 1.5, 2.0, 3.0)  # of one order, in units of a comparison's
BY_LENGTH = (0.0, 0.05, 0.1)  # more of it for each document beyond two
SLOTS = (0.0, 1.0)  # what the first slot is better than the last
GRADE_NOISE = (0.5, 1.0, 1.5)


def hidden(population: str, rng: np.random.Generator) -> Reals:
    """Scores of the documents: differences mostly lie in −4..4."""
    if population == "even":
        return rng.normal(0, 1.3, N)
    return np.where(np.arange(N) < 8, rng.normal(3, 1, N), rng.normal(-1, 0.7, N))


# How judges answer.


def strengths(s: Reals, edges: Edges, rng: np.random.Generator) -> Reals:
    """P(first ≻ second) as a judge says it under METHOD's noise: nearly its probability."""
    noisy = expit(s[edges[:, 0]] - s[edges[:, 1]] + rng.normal(0, 0.2, len(edges)))
    return 0.98 * noisy + 0.02 * rng.random(len(edges))


def choices(s: Reals, edges: Edges, rng: np.random.Generator) -> Reals:
    """0 or 1, drawn with that probability: Gumbel noise on each document of each call."""
    return (rng.random(len(edges)) < strengths(s, edges, rng)).astype(np.float64)


def order(s: Reals, block: Any, noise: float, slots: float, rng: np.random.Generator) -> Any:
    """Documents of a block, the best first: `noise` times the Gumbel noise of a choice between
    two."""
    seen = s[block] + slots * (0.5 - np.linspace(0, 1, len(block)))
    return block[np.argsort(-(seen + noise * rng.gumbel(size=len(block))))]


# Ways of asking: Elos (N,) and calls, by how many documents one shows.

Found = tuple[Reals, dict[int, int]]
Asking = Callable[[Reals, np.random.Generator], Found]


def pairwise(
    cycles: int, answer: Callable[..., Reals], s: Reals, rng: np.random.Generator
) -> Found:
    """`sampler=cycles`."""
    edges = Cycles(cycles=cycles).edges(N, rng)
    return elos(edges, answer(s, edges, rng)), {2: len(edges)}


def adaptive(pairs: int, answer: Callable[..., Reals], s: Reals, rng: np.random.Generator) -> Found:
    """`sampler=informative`."""
    sampler = Informative(comparisons=pairs, model="bradley_terry")
    edges = sampler.edges(N, rng)
    p = answer(s, edges, rng)
    for left in range(sampler.max_rounds - 1, 0, -1):
        new = sampler.next_edges(N, edges, p, left, rng)
        edges, p = np.concatenate([edges, new]), np.concatenate([p, answer(s, new, rng)])
    return elos(edges, p), {2: len(edges)}


def elos(edges: Edges, p: Reals) -> Reals:
    """Of comparisons."""
    c = Comparisons(np.zeros(len(p), np.int64), edges[:, 0], edges[:, 1], p, sizes=[N])
    return fit(c, "bradley_terry", PRIOR, threads=1).elo


def in_blocks(
    sampler: Blocks,
    noise: float,
    by_length: float,
    slots: float,
    best: bool,
    s: Reals,
    rng: np.random.Generator,
) -> Found:
    """`sampler=blocks`, ordered, or only the `best` named."""
    orders: list[Any] = []
    calls: dict[int, int] = {}
    edges, p = np.zeros((0, 2), np.int64), np.zeros(0)
    for left in range(sampler.max_rounds, 0, -1):
        first = not orders
        blocks = sampler.blocks(N, rng) if first else sampler.next_blocks(N, edges, p, left, rng)
        for block in blocks:
            calls[len(block)] = calls.get(len(block), 0) + 1
            of_block = noise * (1 + by_length * (len(block) - 2))
            orders.append(order(s, block, of_block, slots, rng))
        edges = cycles_through(blocks)
        p = np.array([share_above(a, b, orders) for a, b in edges.tolist()])
    query = np.zeros(len(orders), np.int64)
    if best:
        lists, below = [[o[0]] for o in orders], [o[1:].tolist() for o in orders]
        found = fit_rankings(query, lists, PRIOR, sizes=[N], below=below).elo
    else:
        found = fit_rankings(query, orders, PRIOR, sizes=[N]).elo
    return found, calls


def share_above(a: int, b: int, orders: list[Any]) -> float:
    """Share of the orders with both documents that have `a` above `b`."""
    both = [o.tolist() for o in orders if a in o and b in o]
    return float(np.mean([o.index(a) < o.index(b) for o in both]))


def graded(noise: float, levels: bool, s: Reals, rng: np.random.Generator) -> Found:
    """Each document by itself: a grade from 0 to 3, as an expected value or, of `levels`, whole."""
    grade = 1.5 + (s + rng.normal(0, noise, N)) / 2
    return np.clip(np.round(grade), 0, 3) if levels else np.clip(grade, 0, 3), {1: N}


def ways() -> Iterator[tuple[str, str, Asking]]:
    """Name, noise in words, and how to ask."""
    for name, answer in (("strengths", strengths), ("choices", choices)):
        for cycles in CYCLES:
            yield f"{cycles} cycles", name, partial(pairwise, cycles, answer)
        yield "240 adaptive", name, partial(adaptive, 240, answer)
    plain = (1.0, 0.0, 0.0, False)
    for size in SIZES:
        for times in TIMES:
            blocks = Blocks(size=size, times=times)
            yield f"{times:g} × blocks of {size}", "order 1.0", partial(in_blocks, blocks, *plain)
        best = Blocks(size=size, times=4)
        yield f"4 × best of {size}", "order 1.0", partial(in_blocks, best, 1.0, 0.0, 0.0, True)
        swept = Blocks(size=size, times=2)  # of which noise and slots are swept
        for noise in LIST_NOISE[1:]:
            asked = partial(in_blocks, swept, noise, 0.0, 0.0, False)
            yield f"2 × blocks of {size}", f"order {noise}", asked
        for more in BY_LENGTH[1:]:
            asked = partial(in_blocks, swept, 1.0, more, 0.0, False)
            yield f"2 × blocks of {size}", f"order 1.0, +{more:.0%} a document", asked
        for slots in SLOTS[1:]:
            asked = partial(in_blocks, swept, 1.0, 0.0, slots, False)
            yield f"2 × blocks of {size}", f"order 1.0, slots {slots}", asked
    for times in (1, 2):
        top = Blocks(size=20, times=times, window_rounds=1, top=30, step=10)
        yield f"{times:g} × blocks of 20, windows", "order 1.0", partial(in_blocks, top, *plain)
    for noise in GRADE_NOISE:
        yield "grades, expected", f"grade {noise}", partial(graded, noise, False)
        yield "grades, whole", f"grade {noise}", partial(graded, noise, True)


def tokens_of(calls: dict[int, int], name: str, length: int) -> tuple[float, float]:
    """Tokens read and written for one query whose documents have `length` each."""
    read = written = 0.0
    for shown, number in calls.items():
        asked_by = "best" if "best" in name else "order"
        if shown <= 2:
            asked_by = "grade" if "grades" in name else "compare"
        parts = sections(asked_by)
        frame = QUERY + sum(estimated_tokens(parts[part]) for part in ("system", "user"))
        each = estimated_tokens(parts.get("document", ""))
        read += number * (frame + shown * (length + each))
        each_call = {"compare": WRITTEN, "grade": 1, "best": LABEL_TOKENS}
        written += number * each_call.get(asked_by, LABEL_TOKENS * shown)
    return read, written


Row = tuple[str, str, str, float, float, float, dict[int, int]]


def one_query(task: tuple[str, int]) -> list[Row]:
    """Of every way: squared error of the hidden scores by a line through the Elos, Kendall's τ,
    and how many of the true top ten are not among the ten highest."""
    population, number = task
    rows = []
    with threadpool_limits(1):
        s = hidden(population, stream(0, "scores", population, str(number)))
        best = set(np.argsort(-s)[:TOP].tolist())
        for name, noise, ask in ways():
            found, calls = ask(s, stream(0, "answers", name, noise, population, str(number)))
            slope = np.polyfit(found, s, 1)
            error = float(np.mean((np.polyval(slope, found) - s) ** 2))
            rng = stream(0, "ties", name, noise, population, str(number))
            ranked = np.lexsort([rng.random(N), -found])[:TOP]
            lost = 1 - len(best & set(ranked.tolist())) / TOP
            tau = float(kendalltau(found, s).statistic)
            rows.append((population, name, noise, error, tau, lost, calls))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--draw", action="store_true", help="the pictures alone")
    options = parser.parse_args()
    if options.draw:
        draw()
        return
    tasks = [(p, n) for p in POPULATIONS for n in range(options.queries)]
    with ProcessPoolExecutor(options.workers) as pool:
        each = track(pool.map(one_query, tasks), "queries")
        found = [row for rows in each for row in rows]
    together: dict[tuple[str, str, str], list[Any]] = {}
    for population, name, noise, *rest in found:
        together.setdefault((population, name, noise), []).append(rest)
    lines = []
    for (population, name, noise), rows in together.items():
        error, tau, lost = (np.array([row[i] for row in rows]) for i in range(3))
        spread = np.sqrt(error.mean())
        half = 1.96 * error.std() / np.sqrt(len(error)) / (2 * spread)
        costs = []
        for length in DOCUMENTS:
            read, written = np.mean([tokens_of(row[3], name, length) for row in rows], axis=0)
            usd = (read * PRICE["input"] + written * PRICE["output"]) / 1e6
            costs += [f"{read:.0f}", f"{usd:.5f}"]
        lines.append(
            [population, name, noise, f"{spread:.4f}", f"{half:.4f}", f"{tau.mean():.4f}",
             f"{lost.mean():.4f}", f"{1.96 * lost.std() / np.sqrt(len(lost)):.4f}", *costs]
        )  # fmt: skip
    header = ["population", "asking", "noise", "error", "±", "tau", "top 10 lost", "± of that"]
    header += [f"{what} at {length}" for length in DOCUMENTS for what in ("tokens read", "usd")]
    write_csv(HERE / "results.csv", header, lines)
    for line in lines:
        print(*line, sep="\t")
    draw()


def draw() -> None:
    """Error by tokens read, at documents of 250 tokens, from results.csv."""
    with (HERE / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    for population in POPULATIONS:
        series: dict[str, list[tuple[float, float]]] = {}
        for row in rows:
            kind = series_of(row["asking"], row["noise"])
            if row["population"] == population and kind:
                point = float(row["tokens read at 250"]) / 1000, float(row["error"])
                series.setdefault(kind, []).append(point)
        with mpl.rc_context(STYLE):
            figure = Figure(figsize=(7, 4))
            axes = figure.subplots()
            for kind, points in series.items():
                x, y = zip(*sorted(points), strict=True)
                axes.plot(x, y, marker="o", label=kind)
            axes.set_xscale("log")
            ticks = [40, 60, 100, 200, 400, 700]
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
            axes.set_xlabel("thousand tokens read for a query, documents of 250")
            axes.set_ylabel("error of the hidden scores")
            axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
            figure.savefig(HERE / f"{population}.png", dpi=120, bbox_inches="tight")


def series_of(asking: str, noise: str) -> str:
    """What a row is drawn as; "" where it is not."""
    if asking.endswith("cycles"):
        return f"pairs: {noise}"
    if asking.startswith("grades, expected") and noise != "grade 1.5":
        return f"grades, noise {noise.split()[1]}"
    if "blocks" in asking and "windows" not in asking and noise == "order 1.0":
        return asking.split(" × ")[1]
    return ""


if __name__ == "__main__":
    main()
