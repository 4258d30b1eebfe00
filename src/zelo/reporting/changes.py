"""The queries that training helped and hurt most, with what is ranked first before and after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zelo.artifacts import read_table
from zelo.data.texts import document_texts, query_texts, relevance_grades
from zelo.evaluation.evaluate import START, TRAINED, values_by_system
from zelo.retrieval.ranking import rankings_from

METRIC = "NDCG@10"
SHOWN = 4  # queries of each kind
DEPTH = 3  # documents of each ranking
LENGTH = 360  # characters of a document


@dataclass(frozen=True)
class Ranked:
    """A document at its place in a ranking."""

    rank: int
    doc_id: str
    text: str  # its beginning
    grade: int | None  # None: not labelled
    other: int | None  # its rank in the other ranking


@dataclass(frozen=True)
class Change:
    """One query under the starting and under the trained model."""

    query_id: str
    text: str
    before: float
    after: float
    start: list[Ranked]
    trained: list[Ranked]

    @property
    def gain(self) -> float:
        """How much better the trained model does."""
        return self.after - self.before


def gains(metrics: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Ids of the evaluated queries, and each one's NDCG@10 (Q,) by the starting and the trained
    model."""
    wanted = (pc.field("metric") == METRIC) & pc.field("system").isin([START, TRAINED])
    rows = read_table(metrics, "per_query", wanted)
    values = values_by_system(rows)
    ids = sorted(set(rows["query_id"].to_pylist()))
    return ids, values[START, METRIC], values[TRAINED, METRIC]


def changes(data: Path, metrics: Path) -> tuple[list[Change], list[Change]]:
    """The queries that gained and those that lost most, of each at most `SHOWN`."""
    ids, before, after = gains(metrics)
    order = np.argsort(before - after, kind="stable")
    won = [int(i) for i in order if after[i] > before[i]][:SHOWN]
    lost = [int(i) for i in order[::-1] if after[i] < before[i]][:SHOWN]
    chosen = [ids[i] for i in won + lost]
    wanted = pc.field("query_id").isin(pa.array(chosen, pa.string())) & pc.field("system").isin(
        [START, TRAINED]
    )
    rankings = rankings_from(read_table(metrics, "rankings", wanted))
    orders = {
        system: {query_id: [d for d, _ in ranked] for query_id, ranked in ranking.items()}
        for system, ranking in rankings.items()
    }
    first = {d for order in orders.values() for docs in order.values() for d in docs[:DEPTH]}
    texts, queries, grades = document_texts(data, first), query_texts(data), relevance_grades(data)

    def shown(query_id: str, system: str, other: str) -> list[Ranked]:
        docs, others = orders[system][query_id], orders[other][query_id]
        return [
            Ranked(
                rank,
                doc_id,
                beginning(texts[doc_id]),
                grades.get(query_id, {}).get(doc_id),
                others.index(doc_id) + 1 if doc_id in others else None,
            )
            for rank, doc_id in enumerate(docs[:DEPTH], start=1)
        ]

    def change(i: int) -> Change:
        q = ids[i]
        both = shown(q, START, TRAINED), shown(q, TRAINED, START)
        return Change(q, beginning(queries[q]), float(before[i]), float(after[i]), *both)

    return [change(i) for i in won], [change(i) for i in lost]


def beginning(text: str) -> str:
    """The first `LENGTH` characters of a text, its runs of white space as one space each."""
    words = " ".join(text.split())
    return words if len(words) <= LENGTH else words[:LENGTH].rstrip() + " …"
