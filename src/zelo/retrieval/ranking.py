"""Rankings: as arrays of many queries, as lists, and as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zelo.artifacts import SCHEMAS, Table, table
from zelo.data.texts import Corpus

# Query id → (document id, score), best first. Ties keep the order of the collection.
Ranking = Mapping[str, Sequence[tuple[str, float]]]


@dataclass(frozen=True)
class Hits:
    """The best documents of Q queries, best first, by their index in the collection.

    Where a query has fewer than K the rest of its row is −1, with a score of −∞.
    """

    doc_QK: NDArray[np.int64]
    score_QK: NDArray[np.float64]

    @classmethod
    def empty(cls, queries: int, k: int) -> Hits:
        """No hit for any query."""
        return cls(np.full((queries, k), -1), np.full((queries, k), -np.inf))

    def top(self, k: int) -> Hits:
        """The best `k` of each query."""
        return Hits(self.doc_QK[:, :k], self.score_QK[:, :k])

    def without(self, doc_Q: NDArray[np.int64]) -> Hits:
        """All but one document of each query, by its index in the collection; −1: all."""
        if (doc_Q < 0).all():
            return self
        found_QK = (self.doc_QK >= 0) & (self.doc_QK != doc_Q[:, None])
        order_QK = np.argsort(~found_QK, axis=1, kind="stable")
        return Hits(
            np.take_along_axis(np.where(found_QK, self.doc_QK, -1), order_QK, axis=1),
            np.take_along_axis(np.where(found_QK, self.score_QK, -np.inf), order_QK, axis=1),
        )

    def table(self, name: str, query_ids: Sequence[str], doc_ids: pa.Array) -> Table:
        """As a table of the schema called `name` but for its column `system`, if it has one."""
        q, k = np.nonzero(self.doc_QK >= 0)
        columns = {
            "query_id": pa.array(query_ids, pa.string()).take(pa.array(q)),
            "doc_id": doc_ids.take(pa.array(self.doc_QK[q, k])),
            "rank": pa.array(k + 1, pa.int32()),
            "score": pa.array(self.score_QK[q, k], pa.float64()),
        }
        return pa.table({c: columns[c] for c in SCHEMAS[name].names if c in columns})

    def ranking(
        self, query_ids: Sequence[str], doc_ids: pa.Array
    ) -> dict[str, list[tuple[str, float]]]:
        """As lists."""
        found: dict[str, list[tuple[str, float]]] = {query_id: [] for query_id in query_ids}
        rows = self.table("candidates", query_ids, doc_ids).to_pylist()
        for row in rows:
            found[row["query_id"]].append((row["doc_id"], row["score"]))
        return found


def documents_left_out_of(query_ids: Iterable[str], corpus: Corpus) -> NDArray[np.int64]:
    """Index (Q,) of the document that is not to be found for a query, −1 where there is none."""
    return np.array([corpus.left_out.get(q, -1) for q in query_ids], dtype=np.int64)


def top_documents(score_N: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """Indices (at most k,) of the highest positive scores (N,), best first, ties in their order."""
    found = np.flatnonzero(score_N > 0)
    if len(found) > k:
        scores = score_N[found]
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        above = found[scores > least]
        found = np.sort(np.concatenate([above, found[scores == least][: k - len(above)]]))
    return found[np.argsort(-score_N[found], kind="stable")]


def rank_by_score(
    pool: Mapping[str, Sequence[str]], scores: Mapping[str, Sequence[float]]
) -> Ranking:
    """Candidates by score, best first; equal scores keep the order of the first stage."""
    return {
        query_id: sorted(
            zip(docs, scores[query_id], strict=True), key=lambda item: item[1], reverse=True
        )
        for query_id, docs in pool.items()
    }


def rankings_table(name: str, rankings: Mapping[str, Ranking]) -> Table:
    """Several systems' rankings as one table of the schema called `name`."""
    rows = [
        (system, query_id, doc_id, rank, score)
        for system, ranking in rankings.items()
        for query_id, ranked in ranking.items()
        for rank, (doc_id, score) in enumerate(ranked, start=1)
    ]
    columns = zip(*rows, strict=True) if rows else [[]] * len(SCHEMAS[name].names)
    return table(name, **dict(zip(SCHEMAS[name].names, map(list, columns), strict=True)))


def rankings_from(content: Table) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """Read `rankings_table` back: system → query id → (document id, score), best first."""
    rankings: dict[str, dict[str, list[tuple[str, float]]]] = {}
    ordered = content.sort_by(
        [("system", "ascending"), ("query_id", "ascending"), ("rank", "ascending")]
    )
    names = ("system", "query_id", "doc_id", "score")
    for system, query_id, doc_id, score in zip(
        *(ordered[name].to_pylist() for name in names), strict=True
    ):
        rankings.setdefault(system, {}).setdefault(query_id, []).append((doc_id, score))
    return rankings


def candidates_from(content: Table) -> dict[str, list[str]]:
    """Read a candidates table back: query id → document ids, best first."""
    candidates: dict[str, list[str]] = {}
    ordered = content.sort_by([("query_id", "ascending"), ("rank", "ascending")])
    for query_id, doc_id in zip(
        ordered["query_id"].to_pylist(), ordered["doc_id"].to_pylist(), strict=True
    ):
        candidates.setdefault(query_id, []).append(doc_id)
    return candidates
