"""Which figures a report has, and what they show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from zelo.artifacts import Table, read_table
from zelo.evaluation.significance import Estimate
from zelo.rating.preferences import Preferences
from zelo.reporting import plots
from zelo.reporting.changes import METRIC, gains
from zelo.reporting.plots import Matrix
from zelo.reporting.settled import Settled
from zelo.retrieval.ranking import candidates_from


def of_results(
    metrics: Path,
    found: Mapping[str, Mapping[str, Estimate]],
    calibration: Mapping[str, Any],
    label: Callable[[str], str],
) -> dict[str, str]:
    """Systems side by side, gains of queries, and whether scores mean the same everywhere."""
    _, before, after = gains(metrics)
    figures = {
        "systems": plots.ndcg_by_system(found, METRIC, label),
        "gains": plots.gains(after - before, METRIC),
    }
    if "reason" not in calibration:
        curve = calibration["reliability"]["curve"]
        said = "predicted probability of relevance"
        figures["scores"] = plots.reliability(curve, said, "share relevant", 0.0)
    return figures


def of_elos(
    rated: Table, example: Example | None, stable: Settled | None, model: str
) -> dict[str, str]:
    """Elos of all queries and of one, how sure they are, and whether they are settled."""
    stderr = rated["stderr"].to_pylist()
    figures = {
        "elos": plots.histogram(rated["elo"].to_pylist(), "Elo (zero-sum within a query)"),
        "errors": plots.histogram(stderr, "standard error of the Elo", plots.MUTED),
    }
    if example:
        before, after = "in the order of the first stage", "sorted by Elo"
        figures["before"] = plots.preference_matrix(example.matrix, before)
        figures["after"] = plots.preference_matrix(example.sorted, after)
        figures["query"] = plots.elos_of_one_query(example.elo, example.stderr)
    if stable:
        whole = (stable.per_document, stable.whole)
        figures["settling"] = plots.settling(stable.curve, whole)
        said = f"preference expected by Elos of one half ({model})"
        figures["predicted"] = plots.reliability(
            stable.predicted, said, "mean answer in the other half", 0.5
        )
    return figures


def of_training(trained: Path) -> dict[str, str]:
    """What was lost at every step."""
    return {"loss": plots.loss_curve(read_table(trained, "losses")["loss"].to_pylist())}


@dataclass(frozen=True)
class Example:
    """The query with the most comparisons: its documents in the order of the first stage."""

    query_id: str
    elo: list[float]  # (n,)
    stderr: list[float]
    matrix: Matrix  # (n, n), P(row ≻ column), NaN where a pair was not compared

    @property
    def sorted(self) -> Matrix:
        """The matrix with the documents in the order of their Elos, best first."""
        order = np.argsort(-np.array(self.elo), kind="stable")
        return self.matrix[np.ix_(order, order)]


def most_compared(preferences: Preferences, candidates: Path, ratings: Path) -> Example | None:
    """The query with the most comparisons; None where nothing was compared."""
    if not preferences.query_ids:
        return None
    query_ids, counts = np.unique(np.array(preferences.query_ids, dtype=object), return_counts=True)
    chosen = str(query_ids[counts.argmax()])
    this = pc.field("query_id") == chosen
    rows = read_table(ratings, "ratings", this).to_pylist()
    elo = {row["doc_id"]: row["elo"] for row in rows}
    stderr = {row["doc_id"]: row["stderr"] for row in rows}
    ranked = candidates_from(read_table(candidates, "candidates", this))
    first = [d for d in ranked.get(chosen, []) if d in elo]
    first += [d for d in elo if d not in first]  # compared, but no candidates: recorded pairs
    place = {doc_id: i for i, doc_id in enumerate(first)}
    matrix = np.full((len(first), len(first)), np.nan)
    for query_id, a, b, p in zip(
        preferences.query_ids, preferences.doc_a, preferences.doc_b, preferences.p, strict=True
    ):
        if query_id == chosen:
            matrix[place[a], place[b]], matrix[place[b], place[a]] = p, 1 - p
    return Example(chosen, [elo[d] for d in first], [stderr[d] for d in first], matrix)
