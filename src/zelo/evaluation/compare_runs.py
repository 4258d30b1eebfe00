"""`zelo compare`: TREC runs of the same queries side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zelo.artifacts import save_figure
from zelo.data.records import read_qrels
from zelo.data.trec import encoded, read_run
from zelo.errors import UserError
from zelo.evaluation.evaluate import Values, measure, summarise, values_by_system
from zelo.evaluation.significance import Difference, Estimate, against

MEASURES = ("NDCG@10", "Recall@100", "MRR@10", "MAP@100", "Judged@10")
RESAMPLES = 10_000


def read_grades(path: Path) -> dict[str, dict[str, int]]:
    """Grades of a qrels file: BEIR's (three columns, tabs), TREC's (four), JSON lines, Parquet."""
    grades: dict[str, dict[str, int]] = {}
    for label in read_qrels(path):
        if label.doc_id in grades.setdefault(label.query_id, {}):
            raise UserError(f"{label.where}: query {label.query_id!r} has {label.doc_id!r} twice")
        grades[label.query_id][label.doc_id] = label.relevance
    if not grades:
        raise UserError(f"{path}: empty, at least one label is needed")
    return grades


def compare_runs(
    paths: Sequence[Path], qrels: Path, seed: int = 0, order: str | None = None
) -> tuple[dict[str, dict[str, Estimate]], list[Difference], Values]:
    """Means with intervals by system and measure; tests of each run against the first; and values.

    `order` is that of `read_run`: what documents are ordered by. Every query that has a relevant
    document counts; one that a run lacks scores 0 in it.
    """
    if order not in (None, "rank", "score"):
        raise UserError(f"order={order}: must be rank or score")
    grades = read_grades(qrels)
    # Ids as in runs, their white space encoded.
    grades = {
        encoded(query_id): {encoded(doc_id): grade for doc_id, grade in row.items()}
        for query_id, row in grades.items()
        if max(row.values()) > 0
    }
    if not grades:
        raise UserError(f"{qrels}: no query has a relevant document")
    rankings = {}
    for path in paths:
        run = read_run(path, order)
        if not run.keys() & grades.keys():
            raise UserError(f"{path}: has none of the queries of {qrels}")
        name = path.stem if [p.stem for p in paths].count(path.stem) == 1 else str(path)
        rankings[name] = {query_id: run.get(query_id, []) for query_id in grades}
    if not rankings:
        raise UserError("compare: name at least one run")
    if len(rankings) < len(paths):
        raise UserError("compare: the same run is given twice")
    values = values_by_system(measure(rankings, grades, MEASURES))
    found: dict[str, dict[str, Estimate]] = {}
    for row in summarise(values, RESAMPLES, seed).to_pylist():
        estimate = Estimate(row["value"], row["low"], row["high"])
        found.setdefault(row["system"], {})[row["metric"]] = estimate
    first, *others = rankings
    return found, against(values, first, others, RESAMPLES, seed), values


def draw(values: Values, metric: str, path: Path) -> None:
    """Draw how much each query gains over the first run, sorted; one line per run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    systems = list(dict.fromkeys(system for system, _ in values))
    for system in systems[1:]:
        gain = np.sort(values[system, metric] - values[systems[0], metric])
        axes.plot(np.linspace(0, 100, len(gain)), gain, label=system)
    axes.axhline(0, color="gray", linewidth=0.8)
    axes.set(xlabel="% of queries", ylabel=f"{metric} less that of {systems[0]}")
    axes.legend()
    save_figure(figure, path)
