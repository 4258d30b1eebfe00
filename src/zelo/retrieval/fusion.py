"""Fusion of rankings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from zelo.config import Component, option
from zelo.data.texts import Corpus
from zelo.models.fusion import fused_scores
from zelo.models.pretrained import PretrainedModel
from zelo.retrieval.bm25 import BM25
from zelo.retrieval.dense import Dense
from zelo.retrieval.ranking import Hits, Ranking, documents_left_out_of, rank_by_score

Doc = TypeVar("Doc", int, str)  # a document by its index, or by its id


class Hybrid(Component):
    """`retriever=hybrid`: BM25 and dense retrieval, fused."""

    bm25: BM25 = option(help="the lexical ranking")
    dense: Dense = option(help="the dense ranking")
    method: str = option(
        "rrf",
        "`rrf`: reciprocal ranks; `scores`: scores brought to [0, 1] within each query",
        pattern="^(rrf|scores)$",
    )
    constant: int = option(60, "RRF's constant: larger trusts the first ranks less", ge=1)
    weight: float = option(0.5, "share of the dense ranking in the sum", ge=0, le=1)

    def search(self, queries: Mapping[str, str], corpus: Corpus, k: int) -> dict[str, Hits]:
        """Rankings of `bm25`, `dense` and, last, of `hybrid`, each of `k` documents at most."""
        found = {
            **self.bm25.search(queries, corpus, k),
            **self.dense.search(queries, corpus, k),
        }
        # A query's own text would come first in both and push the others one rank down.
        left_out_Q = documents_left_out_of(queries, corpus)
        rankings = {name: hits.without(left_out_Q) for name, hits in found.items()}
        points = [
            reciprocal_ranks(hits, self.constant) if self.method == "rrf" else unit_scores(hits)
            for hits in rankings.values()
        ]
        weights = (1 - self.weight, self.weight)
        return {**rankings, "hybrid": fused(list(rankings.values()), points, weights, k)}

    def embeds_with(self) -> tuple[PretrainedModel, int]:
        """The model of the dense ranking, and the tokens at which documents are cut."""
        return self.dense.embeds_with()


def fused(
    rankings: Sequence[Hits],
    points: Sequence[NDArray[np.float64]],
    weights: Sequence[float],
    k: int,
) -> Hits:
    """The `k` documents with the highest weighted sum of their points (Q, K) in each ranking.

    A document that a ranking does not have gets no points from it. Ties are in the order of the
    first ranking, then of the second.
    """
    queries = len(rankings[0].doc_QK)
    best = Hits.empty(queries, k)
    for q in range(queries):
        ranked = highest_sums(
            (
                (doc, weight * value)
                for hits, points_QK, weight in zip(rankings, points, weights, strict=True)
                for doc, value in zip(hits.doc_QK[q].tolist(), points_QK[q].tolist(), strict=True)
                if doc >= 0
            ),
            k,
        )
        best.doc_QK[q, : len(ranked)] = [doc for doc, _ in ranked]
        best.score_QK[q, : len(ranked)] = [value for _, value in ranked]
    return best


def reciprocal_ranks(hits: Hits, constant: int = 60) -> NDArray[np.float64]:
    """1 / (constant + rank) of each hit (Q, K), rank from 1.

    Source: Cormack, Clarke and Büttcher, *Reciprocal rank fusion*, SIGIR 2009.
    """
    rank_K = np.arange(1, hits.doc_QK.shape[1] + 1)
    return np.broadcast_to(1.0 / (constant + rank_K), hits.doc_QK.shape)


def fused_by_score(lexical: Ranking, dense: Ranking, weight: float, k: int) -> Ranking:
    """The `k` best documents by `(1 − weight) · z(lexical) + weight · z(dense)`, where `z` is taken
    over all documents of a query that either ranking has.

    A document that a ranking does not have gets the least score of that ranking: it is not known
    to be lower. Ties are in the order of the lexical ranking, then of the dense one.
    """
    pool, fused = {}, {}
    for query_id, hits in dense.items():
        by_words, by_meaning = dict(lexical.get(query_id, [])), dict(hits)
        docs = pool[query_id] = list(by_words | by_meaning)
        scores = or_least(by_words, docs), or_least(by_meaning, docs)
        fused[query_id] = fused_scores(*scores, weight).tolist()
    ranked = rank_by_score(pool, fused)
    return {query_id: ranking[:k] for query_id, ranking in ranked.items()}


def or_least(scores: Mapping[str, float], docs: Sequence[str]) -> list[float]:
    """The score of each document; the least of all where it has none."""
    least = min(scores.values(), default=0.0)
    return [scores.get(doc, least) for doc in docs]


def highest_sums(points: Iterable[tuple[Doc, float]], k: int) -> list[tuple[Doc, float]]:
    """The `k` documents with the highest sum of their points; ties as they came first."""
    sums: dict[Doc, float] = {}
    for doc, value in points:
        sums[doc] = sums.get(doc, 0.0) + value
    return sorted(sums.items(), key=lambda item: -item[1])[:k]


def unit_scores(hits: Hits) -> NDArray[np.float64]:
    """Scores (Q, K) brought linearly to [0, 1] within each query: 1 the best, 0 the last found."""
    found = hits.doc_QK >= 0
    low = np.min(hits.score_QK, 1, keepdims=True, where=found, initial=np.inf)
    span = np.max(hits.score_QK, 1, keepdims=True, where=found, initial=-np.inf) - low
    above = np.where(found, hits.score_QK - np.where(found, low, 0.0), 0.0)
    unit = np.divide(above, span, out=np.ones_like(above), where=span > 0)
    return np.where(found, unit, 0.0)
