"""Elos as ground truth: how good a ranking is where there are judges and no labels.

Documents without an Elo (unrated) have a gain of 0, as unjudged ones have in the measures of
`zelo.evaluation.metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zelo.artifacts import SCHEMAS, Table, table
from zelo.config import option
from zelo.data.texts import document_texts
from zelo.evaluation.metrics import dcg
from zelo.evaluation.pair_judging import PairJudging, PoolElos
from zelo.retrieval.ranking import Ranking

ROUNDING = 1e-9
DEPTH = 10  # ranks that are measured
ELO_NDCG = "NDCG@10 (exp Elo)"
ELO_MEASURES = (ELO_NDCG, "pairwise accuracy", "top-10 recall")


class EloTruth(PairJudging):
    """`truth=elo`: judges in the place of labels. The `top` documents of every system's ranking of
    a query are pooled, compared in pairs and rated."""

    top: int = option(10, "documents of each ranking that are pooled", ge=DEPTH)

    def rate(
        self, data: Path, queries: Mapping[str, str], rankings: Mapping[str, Ranking]
    ) -> PoolElos:
        """Elos of the pooled documents, of the queries about which there is an answer."""
        pool = {
            query_id: list(
                dict.fromkeys(
                    doc_id
                    for ranking in rankings.values()
                    for doc_id, _ in ranking.get(query_id, [])[: self.top]
                )
            )
            for query_id in queries
        }
        documents = document_texts(data, {doc_id for docs in pool.values() for doc_id in docs})
        judged = self.elos("truth", data, queries, documents, pool)
        return judged._replace(elos={q: elo for q, elo in judged.elos.items() if elo})


def measure_by_elos(
    rankings: Mapping[str, Ranking], elos: Mapping[str, Mapping[str, float]]
) -> Table:
    """`ELO_MEASURES` of every rated query under every system, as a `per_query` table.

    A pairwise accuracy is left out where all Elos of a query are equal.
    """
    rows = []
    for system, ranking in rankings.items():
        for query_id, elo in elos.items():
            values = elo_values([doc_id for doc_id, _ in ranking.get(query_id, [])], elo)
            rows += [
                (system, query_id, measure, value)
                for measure, value in zip(ELO_MEASURES, values, strict=True)
                if not np.isnan(value)
            ]
    names = SCHEMAS["per_query"].names
    return table("per_query", **dict(zip(names, zip(*rows, strict=True), strict=True)))


def elo_values(ranked: Sequence[str], elos: Mapping[str, float]) -> tuple[float, float, float]:
    """`ELO_MEASURES` of one ranking, in their order."""
    return elo_ndcg(ranked, elos), pairwise_accuracy(ranked, elos), top_recall(ranked, elos)


def elo_ndcg(ranked: Sequence[str], elos: Mapping[str, float], k: int = DEPTH) -> float:
    """NDCG of the first `k` with gains exp(Elo), in [0, 1]; 0 where nothing is rated.

    A constant added to all Elos changes nothing. Source: zbench's definition.
    """
    highest = max(elos.values(), default=0.0)
    gain = {doc_id: float(np.exp(elo - highest)) for doc_id, elo in elos.items()}
    best = np.array([sorted(gain.values(), reverse=True)[:k]])
    got = np.array([[gain.get(doc_id, 0.0) for doc_id in ranked[:k]]])
    return float(dcg(got)[0] / dcg(best)[0]) if gain else 0.0


def pairwise_accuracy(ranked: Sequence[str], elos: Mapping[str, float]) -> float:
    """Share of the pairs of rated documents that stand in the order of their Elos.

    Rated documents that are not ranked are tied below all others: a pair of these counts half.
    Pairs of equal Elos do not count; NaN where there is no other pair.
    """
    rank_of = {doc_id: rank for rank, doc_id in enumerate(ranked)}
    rank = np.array([rank_of.get(doc_id, len(ranked)) for doc_id in elos])
    elo = np.array(list(elos.values()))
    i, j = np.triu_indices(len(elo), 1)
    decided = elo[i] != elo[j]
    right = (1 + np.sign(elo[i] - elo[j]) * np.sign(rank[j] - rank[i])) / 2
    return float(right[decided].mean()) if decided.any() else float("nan")


def top_recall(ranked: Sequence[str], elos: Mapping[str, float], k: int = DEPTH) -> float:
    """Share of the `k` documents of highest Elo (of all, if fewer) among the first `k` ranked."""
    best = sorted(elos, key=lambda doc_id: -elos[doc_id])[:k]
    return len(set(best) & set(ranked[:k])) / len(best) if best else 0.0


class VerdictAgreement(NamedTuple):
    """How often labels and Elos agree which of two systems is better; None where no pair counts."""

    of_systems: float | None  # of verdicts by the mean over queries
    pairs: int  # of systems that differ by labels and by Elos
    of_queries: float | None  # of verdicts on single queries
    decided: int  # pairs of systems on one query that differ by labels and by Elos


def agreement_of_verdicts(
    labels: Mapping[str, Sequence[float]], elos: Mapping[str, Sequence[float]]
) -> VerdictAgreement:
    """Agreement of two measures, each of which maps systems to values of the same queries."""
    systems = list(labels)
    means: list[tuple[int, int]] = []
    queries: list[tuple[int, int]] = []
    for i, a in enumerate(systems):
        for b in systems[i + 1 :]:
            by_label = np.asarray(labels[a]) - np.asarray(labels[b])
            by_elo = np.asarray(elos[a]) - np.asarray(elos[b])
            means.append((sign(by_label.mean()), sign(by_elo.mean())))
            queries += zip(map(sign, by_label), map(sign, by_elo), strict=True)
    return VerdictAgreement(*_agreeing(means), *_agreeing(queries))


def sign(difference: float) -> int:
    """Sign of a difference; 0 where it may come from rounding alone."""
    return int(np.sign(difference)) if abs(difference) > ROUNDING else 0


def _agreeing(verdicts: Sequence[tuple[int, int]]) -> tuple[float | None, int]:
    same = [a == b for a, b in verdicts if a and b]
    return (float(np.mean(same)), len(same)) if same else (None, 0)
