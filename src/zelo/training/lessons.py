"""What there is to learn: queries with their rated documents, and the comparisons between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zelo.artifacts import read_table
from zelo.data.collection import hash_share
from zelo.data.texts import query_texts
from zelo.errors import UserError
from zelo.rating.targets import weights
from zelo.training.objectives import Objective
from zelo.training.options import TrainingOptions


@dataclass(frozen=True)
class RatedQuery:
    """One training query with its rated documents."""

    query_id: str
    doc_ids: Sequence[str]
    targets: Sequence[float]
    weights: Sequence[float] | None = None  # null: 1 for all
    judged: Sequence[tuple[int, int, float]] = ()  # places in doc_ids, preference for the first


class Lessons:
    """What there is to learn: rated training queries, and those that are held out of them."""

    def __init__(
        self,
        data: Path,
        ratings: Path,
        judgments: Mapping[str, Path],
        training: TrainingOptions,
        objective: Objective,
    ) -> None:
        judged = list(judgments.values()) if objective.reads_judgments else []
        texts = query_texts(data, "train")
        self.all = read_rated(list(texts), ratings, judged, training.stderr_weights)
        if not self.all:
            raise UserError(
                "train: no training query has two rated documents; more candidates per query, or "
                "judges that answer, are needed"
            )
        share = {query_id: hash_share(text) for query_id, text in texts.items()}
        self.held_out = [
            one for one in self.all if share[one.query_id] < training.validation_fraction
        ]
        self.rated = [
            one for one in self.all if share[one.query_id] >= training.validation_fraction
        ]
        if not self.rated or (training.validation_fraction and not self.held_out):
            missing = "train on" if not self.rated else "validate on"
            raise UserError(
                f"training.validation_fraction={training.validation_fraction}: of {len(self.all)} "
                f"rated queries none is left to {missing}"
            )
        self.steps = training.steps(-(-len(self.rated) // training.batch_size))


def read_rated(
    query_ids: Sequence[str], ratings: Path, judgments: Sequence[Path], stderr_weights: bool
) -> list[RatedQuery]:
    """Queries with at least two rated documents, in the order of `query_ids`."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    rows = read_table(ratings, "ratings")
    elo, stderr = (rows[name].to_numpy() for name in ("elo", "stderr"))
    weight = weights(elo, stderr) if stderr_weights else np.ones_like(elo)
    columns = (rows[name].to_pylist() for name in ("query_id", "doc_id", "target"))
    for query_id, doc_id, target, w in zip(*columns, weight.tolist(), strict=True):
        found.setdefault(query_id, {})[doc_id] = target, w
    judged = comparisons_of(judgments, found)
    return [
        RatedQuery(
            query_id,
            list(found[query_id]),
            [target for target, _ in found[query_id].values()],
            [w for _, w in found[query_id].values()] if stderr_weights else None,
            judged.get(query_id, []),
        )
        for query_id in query_ids
        if len(found.get(query_id, {})) > 1
    ]


def comparisons_of(
    judgments: Sequence[Path], rated: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[tuple[int, int, float]]]:
    """Each query's judged pairs by the places of their documents, and the preference."""
    if not judgments:
        return {}
    import pyarrow as pa

    from zelo.judging.ensemble import average

    said = average(pa.concat_tables([read_table(i, "judgments") for i in judgments]), "soft")
    place = {q: {doc_id: i for i, doc_id in enumerate(docs)} for q, docs in rated.items()}
    found: dict[str, list[tuple[int, int, float]]] = {}
    for q, a, b, p in zip(said.query_ids, said.doc_a, said.doc_b, said.p.tolist(), strict=True):
        if q in place:
            found.setdefault(q, []).append((place[q][a], place[q][b], p))
    return found
