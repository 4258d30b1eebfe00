"""Fusion of rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zelo.config import Component, option
from zelo.retrieval.bm25 import BM25
from zelo.retrieval.dense import Dense
from zelo.retrieval.ranking import Ranking


class Hybrid(Component):
    """`retriever=hybrid`: BM25 and dense retrieval, fused by reciprocal ranks."""

    bm25: BM25 = option(help="the lexical ranking")
    dense: Dense = option(help="the dense ranking")
    constant: int = option(60, "RRF's constant: larger trusts the first ranks less", ge=1)

    def search(
        self, queries: Mapping[str, str], documents: Mapping[str, str], k: int
    ) -> dict[str, Ranking]:
        """Rankings of `bm25`, `dense` and, last, of `hybrid`, each of `k` documents at most."""
        rankings = {
            **self.bm25.search(queries, documents, k),
            **self.dense.search(queries, documents, k),
        }
        fused = {
            query_id: reciprocal_rank_fusion(
                [[doc_id for doc_id, _ in ranking[query_id]] for ranking in rankings.values()],
                self.constant,
            )[:k]
            for query_id in queries
        }
        return {**rankings, "hybrid": fused}


def reciprocal_rank_fusion(
    rankings: Sequence[Sequence[str]], constant: int = 60
) -> list[tuple[str, float]]:
    """Fuse rankings by `Σ 1 / (constant + rank)`, rank from 1; best first, ties in order of entry.

    Source: Cormack, Clarke and Büttcher, *Reciprocal rank fusion*, SIGIR 2009.
    """
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, doc_id in enumerate(ranking, start=1):
            scores[doc_id] = scores.get(doc_id, 0.0) + 1.0 / (constant + rank)
    return sorted(scores.items(), key=lambda item: -item[1])
