"""Stage `retrieve`: queries and documents in, the candidates of each query out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from zelo.artifacts import table, write_table
from zelo.data.texts import document_texts, query_texts
from zelo.retrieval.ranking import Ranking, ranking_columns, rankings_table
from zelo.store import stage


@runtime_checkable
class Retriever(Protocol):
    """A first stage (`conf/retriever/`)."""

    def search(
        self, queries: Mapping[str, str], documents: Mapping[str, str], k: int
    ) -> dict[str, Ranking]:
        """Rankings by name; the last one is the retriever's own, the others went into it."""
        ...


RANKED = 100  # shortest ranking that Recall@100 can be taken of


@stage(version=1)
def retrieve(*, out: Path, data: Path, retriever: Retriever, top_k: int) -> Mapping[str, Any]:
    """Write the `first_stage` rankings and the top `top_k` of the last one, the `candidates`."""
    queries, documents = query_texts(data), document_texts(data)
    rankings = retriever.search(queries, documents, max(top_k, RANKED))
    name, whole = list(rankings.items())[-1]
    candidates = {query_id: ranked[:top_k] for query_id, ranked in whole.items()}
    write_table(out, "first_stage", rankings_table("first_stage", rankings))
    write_table(out, "candidates", table("candidates", **ranking_columns(candidates)))
    sizes = [len(ranked) for ranked in candidates.values()]
    return {
        "retriever": name,
        "candidates": sum(sizes),
        "queries_without_candidates": sizes.count(0),
        "queries_with_one_candidate": sizes.count(1),
    }
