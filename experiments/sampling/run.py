"""How near do sparse comparisons come to the Elos of all pairs, by which pairs are asked?

python experiments/sampling/run.py [--queries 200] [--workers 2]

Writes the numbers as CSV and the figures as PNG beside this file; see README.md.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import kendalltau
from threadpoolctl import threadpool_limits

from zelo.comparison.adaptive import AdaptiveSampler, Closest, Informative
from zelo.comparison.graphs import (
    Bipartite,
    Cycles,
    RandomPairs,
    Regular,
    all_pairs,
    statistics,
)
from zelo.comparison.sampler import Edges
from zelo.progress import track
from zelo.rating import Comparisons, fit
from zelo.reporting.plots import STYLE
from zelo.seeding import stream

HERE, N, TOP = Path(__file__).parent, 100, 10
SEED = 2  # the adaptive sampler's defaults were chosen on queries of seeds 0 and 1
PAPER, TARGET = 400, 240  # the paper's comparisons per query, and 60 % of them
MODELS = ("thurstone", "bradley_terry")
POPULATIONS = {
    "even": "hidden scores N(0, 1.3²): differences mostly in −4..4",
    "realistic": "8 relevant documents N(3, 1), 92 others N(−1, 0.7²)",
}
METRICS = {
    "mse": "MSE of Elos",
    "tau": "Kendall τ",
    "mse_top": "MSE of Elos, top 10",
    "tau_top": "Kendall τ, top 10",
}
COLORS = {
    "cycles": "#0969da",
    "regular": "#54aeff",
    "random": "#8c959f",
    "bipartite": "#bc4c00",
    "closest": "#bf3989",
    "informative": "#1a7f37",
}
Reals = NDArray[np.float64]


def hidden(population: str, rng: np.random.Generator) -> Reals:
    if population == "even":
        return rng.normal(0, 1.3, N)
    return np.where(np.arange(N) < 8, rng.normal(3, 1, N), rng.normal(-1, 0.7, N))


def said(s: Reals, rng: np.random.Generator) -> Reals:
    """A judge's answer to every ordered pair (N, N), by METHOD's noise model."""
    noisy = expit(s[:, None] - s[None, :] + rng.normal(0, 0.2, (N, N)))
    return 0.98 * noisy + 0.02 * rng.random((N, N))


def one_per_pair(answers: Reals) -> Reals:
    """The answer above the diagonal stands for the pair in either order."""
    upper = np.triu(answers, 1)
    return upper + np.tril(1 - upper.T, -1)


def elos(edges: Edges, answers: Reals, model: str) -> Reals:
    zero = np.zeros(len(edges), np.int64)
    p = answers[edges[:, 0], edges[:, 1]]
    return fit(Comparisons(zero, edges[:, 0], edges[:, 1], p, sizes=[N]), model, threads=1).elo


def in_rounds(sampler: AdaptiveSampler, answers: Reals, rng: np.random.Generator) -> Edges:
    edges = sampler.edges(N, rng)
    for left in range(sampler.max_rounds - 1, 0, -1):
        p = answers[edges[:, 0], edges[:, 1]]
        edges = np.concatenate([edges, sampler.next_edges(N, edges, p, left, rng)])
    return edges


def samples(answers: Reals, model: str, rng: np.random.Generator) -> Iterator[tuple[str, Edges]]:
    """Every sampler at every budget."""
    for k in (1, 2, 3, 4, 6, 8, 12):
        yield "cycles", Cycles(cycles=k).edges(N, rng)
        yield "regular", Regular(degree=2 * k).edges(N, rng)
        yield "random", RandomPairs(comparisons=100 * k).edges(N, rng)
    for anchors in (1, 2, 3, 4, 6, 9, 14):
        yield "bipartite", Bipartite(anchors=anchors).edges(N, rng)
    for budget in (160, 200, 240, 300, 400, 600, 800, 1200):
        rounds = 1 + budget // 20  # the live method as it is described, but for batches of 20
        live = Closest(comparisons=budget, random_share=0, rounds=rounds, model=model)
        yield "closest", in_rounds(live, answers, rng)
        yield "informative", in_rounds(Informative(comparisons=budget, model=model), answers, rng)


def errors(found: Reals, dense: Reals) -> dict[str, float]:
    top = np.argsort(-dense)[:TOP]
    return {
        "mse": float(np.mean((found - dense) ** 2)),
        "tau": float(kendalltau(found, dense).statistic),
        "mse_top": float(np.mean((found - dense)[top] ** 2)),
        "tau_top": float(kendalltau(found[top], dense[top]).statistic),
        "recall_top": len(set(np.argsort(-found)[:TOP]) & set(top)) / TOP,
    }


def one_query(task: tuple[str, str, int]) -> list[dict[str, Any]]:
    """Rows of one query: sampler, comparisons and errors; for figure 10 with ordered pairs."""
    population, model, query = task
    rng = stream(SEED, population, str(query))
    s = hidden(population, rng)
    both_orders = said(s, rng)
    answers = one_per_pair(both_orders)
    dense = elos(all_pairs(N), answers, model)
    about = {"population": population, "model": model, "query": query}
    rows = []
    for number, (sampler, edges) in enumerate(samples(answers, model, rng)):
        graph = (
            statistics(N, edges)
            if sampler in ("cycles", "regular", "random", "bipartite")
            or (len(edges) in (TARGET, PAPER))
            else None
        )
        rows.append(
            {
                **about,
                "sampler": sampler,
                "setting": number,
                "comparisons": len(edges),
                **errors(elos(edges, answers, model), dense),
                "graph": graph,
            }
        )
    ordered = np.argwhere(~np.eye(N, dtype=bool))
    dense = elos(ordered, both_orders, model)
    for number, few in enumerate((100, 200, 300, 400, 600, 800, 1200, 2000, 4000, 8000)):
        edges = ordered[rng.choice(len(ordered), few, replace=False)]
        found = errors(elos(edges, both_orders, model), dense)
        rows.append(
            {
                **about,
                "sampler": "random ordered",
                "setting": number,
                "comparisons": few,
                **found,
                "graph": None,
            }
        )
    return rows


def summarised(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and 95 % interval over queries of every sampler at every budget."""
    groups: dict[tuple[str, str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["population"], row["model"], row["sampler"], row["setting"]].append(row)
    out = []
    for (population, model, sampler, _), group in groups.items():
        entry: dict[str, Any] = {
            "population": population,
            "model": model,
            "sampler": sampler,
            "comparisons": round(float(np.mean([row["comparisons"] for row in group])), 1),
            "queries": len(group),
        }
        for metric in (*METRICS, "recall_top"):
            values = np.array([row[metric] for row in group])
            half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
            entry |= {
                metric: f"{values.mean():.5f}",
                f"{metric}_low": f"{values.mean() - half:.5f}",
                f"{metric}_high": f"{values.mean() + half:.5f}",
            }
        out.append(entry)
    return out


def graph_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean statistics of the graphs nearest to the paper's budget, and of adaptive ones at 60 %."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        near = 330 < row["comparisons"] <= 420 or row["comparisons"] == TARGET
        if row["graph"] and near and row["model"] == "thurstone" and row["population"] == "even":
            groups[row["sampler"], row["setting"]].append(asdict(row["graph"]))
    out = []
    for (sampler, _), group in groups.items():
        connected = [g["diameter"] for g in group if g["diameter"] is not None]
        out.append(
            {
                "sampler": sampler,
                **{
                    key: round(float(np.mean([g[key] for g in group])), 2)
                    for key in ("edges", "degree_min", "degree_mean", "degree_max")
                },
                "connected": round(len(connected) / len(group), 3),
                "diameter": round(float(np.mean(connected)), 2) if connected else "",
                "algebraic_connectivity": round(
                    float(np.mean([g["algebraic_connectivity"] for g in group])), 2
                ),
            }
        )
    return out


def against_cycles(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The adaptive sampler at 60 % of the paper's budget against cycles at all of it, in pairs."""
    out = []
    for population in POPULATIONS:
        for model in MODELS:
            mine = [r for r in rows if (r["population"], r["model"]) == (population, model)]
            cycles = [
                r for r in mine if r["sampler"] == "cycles" and 330 < r["comparisons"] <= PAPER
            ]
            few = [r for r in mine if (r["sampler"], r["comparisons"]) == ("informative", TARGET)]
            curve = defaultdict(list)
            for row in mine:
                if row["sampler"] == "informative":
                    curve[row["comparisons"]].append(row)
            for metric in METRICS:
                a, b = (np.array([r[metric] for r in side]) for side in (few, cycles))
                half = 1.96 * (a - b).std(ddof=1) / np.sqrt(len(a))
                sign = 1 if metric.startswith("tau") else -1
                enough = [
                    n
                    for n, group in sorted(curve.items())
                    if sign * np.mean([r[metric] for r in group]) >= sign * b.mean()
                ]
                out.append(
                    {
                        "population": population,
                        "model": model,
                        "metric": metric,
                        "cycles_400": f"{b.mean():.5f}",
                        "informative_240": f"{a.mean():.5f}",
                        "difference": f"{(a - b).mean():.5f}",
                        "low": f"{(a - b).mean() - half:.5f}",
                        "high": f"{(a - b).mean() + half:.5f}",
                        "least_comparisons_as_good": enough[0] if enough else "",
                    }
                )
    return out


def figure(table: list[dict[str, Any]], population: str, model: str, name: str) -> None:
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(10, 6.6), layout="constrained")
        panels = drawing.subplots(2, 2).ravel()
        for axes, (metric, title) in zip(panels, METRICS.items(), strict=True):
            for sampler, color in COLORS.items():
                rows = [
                    r
                    for r in table
                    if (r["population"], r["model"], r["sampler"]) == (population, model, sampler)
                ]
                rows.sort(key=lambda r: r["comparisons"])
                curve(axes, rows, metric, color, sampler)
            axes.axvline(PAPER, color="#d0d7de", linewidth=1, zorder=0)
            finish(axes, metric, title)
        panels[0].legend(frameon=False, fontsize=8)
        drawing.suptitle(
            f"{POPULATIONS[population]} · {model.replace('_', '–').title()} · "
            f"{rows[0]['queries']} queries, mean and 95 % interval",
            fontsize=10,
        )
        drawing.savefig(HERE / name, dpi=120)


def figure_10(table: list[dict[str, Any]]) -> None:
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(10, 3.4), layout="constrained")
        panels = drawing.subplots(1, 2)
        for axes, metric in zip(panels, ("mse", "tau"), strict=True):
            for population, color in zip(POPULATIONS, ("#0969da", "#bc4c00"), strict=True):
                rows = [
                    r
                    for r in table
                    if (r["population"], r["model"], r["sampler"])
                    == (population, "thurstone", "random ordered")
                ]
                curve(axes, rows, metric, color, population)
            axes.axvline(1200, color="#d0d7de", linewidth=1, zorder=0)
            finish(axes, metric, METRICS[metric])
            axes.set_xticks([100, 400, 1200, 4000, 8000], ["100", "400", "1,200", "4,000", "8,000"])
            axes.set_xlabel("ordered pairs of 9,900")
        panels[0].legend(frameon=False, fontsize=8)
        drawing.savefig(HERE / "figure_10.png", dpi=120)


def curve(axes: Any, rows: list[dict[str, Any]], metric: str, color: str, label: str) -> None:
    x = [r["comparisons"] for r in rows]
    y, low, high = (
        [float(r[key]) for r in rows] for key in (metric, f"{metric}_low", f"{metric}_high")
    )
    axes.plot(x, y, "o-", color=color, label=label, markersize=3, linewidth=1.4)
    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def finish(axes: Any, metric: str, title: str) -> None:
    axes.set_xscale("log")
    if metric.startswith("mse"):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xticks([100, 200, 400, 800, 1200], ["100", "200", "400", "800", "1,200"])
    axes.minorticks_off()
    axes.set_xlabel("comparisons per query")
    axes.set_title(title)
    axes.grid(color="#eaeef2")


def write(name: str, rows: list[dict[str, Any]]) -> None:
    with (HERE / name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--queries", type=int, default=200, help="per population")
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    tasks = [(p, m, q) for q in range(given.queries) for p in POPULATIONS for m in MODELS]
    rows: list[dict[str, Any]] = []
    one_thread = {"initializer": threadpool_limits, "initargs": (1,)}
    with ProcessPoolExecutor(given.workers, **one_thread) as pool:
        found = pool.map(one_query, tasks)
        for _, part in zip(track(tasks, "queries"), found, strict=True):
            rows += part
    table = summarised(rows)
    write("results.csv", table)
    write("graphs.csv", graph_rows(rows))
    write("against_cycles.csv", against_cycles(rows))
    figure(table, "even", "thurstone", "figure_9.png")
    figure(table, "realistic", "thurstone", "figure_9_realistic.png")
    figure(table, "realistic", "bradley_terry", "figure_9_realistic_bradley_terry.png")
    figure_10(table)


if __name__ == "__main__":
    main()
