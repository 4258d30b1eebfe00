"""Elos as ground truth: how good a ranking is where there are judges and no labels.

Documents without an Elo (unrated) are worth nothing, as unjudged ones are to the measures of
`zelo.evaluation.metrics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zelo.data.texts import document_texts
from zelo.evaluation.metrics import dcg
from zelo.evaluation.pair_judging import PairJudging
from zelo.retrieval.ranking import Ranking

ELO_NDCG = "NDCG@10 (exp Elo)"
ELO_MEASURES = (ELO_NDCG, "pairwise accuracy", "top-10 recall")


class EloTruth(PairJudging):
    """`truth=elo`: judges in the place of labels. The `top` documents of every system's ranking of
    a query are pooled, compared in pairs and rated."""

    def measure(
        self, data: Path, queries: Mapping[str, str], rankings: Mapping[str, Ranking]
    ) -> list[tuple[str, str, str, float]]:
        """(system, query id, measure, value) of every ranking of the queries that were rated.

        A pairwise accuracy that is not defined for every system is left out for all.
        """
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
        elos = self.elos("truth", data, queries, documents, pool)
        rows = []
        for query_id, elo in elos.items():
            if not elo:
                continue
            ranked = {
                system: [doc_id for doc_id, _ in ranking.get(query_id, [])]
                for system, ranking in rankings.items()
            }
            found = {system: elo_values(docs, elo) for system, docs in ranked.items()}
            for place, measure in enumerate(ELO_MEASURES):
                values = [row[place] for row in found.values()]
                if not np.isnan(values).any():
                    rows += [
                        (system, query_id, measure, value)
                        for system, value in zip(found, values, strict=True)
                    ]
        return rows


def elo_values(ranked: Sequence[str], elos: Mapping[str, float]) -> tuple[float, float, float]:
    """`ELO_MEASURES` of one ranking, in their order."""
    return elo_ndcg(ranked, elos), pairwise_accuracy(ranked, elos), top_recall(ranked, elos)


def elo_ndcg(ranked: Sequence[str], elos: Mapping[str, float], k: int = 10) -> float:
    """NDCG of the first `k` with gains exp(Elo), in [0, 1]; 0 where nothing is rated.

    A constant added to all Elos changes nothing. Source: zbench's definition.
    """
    highest = max(elos.values(), default=0.0)
    gain = {doc_id: float(np.exp(elo - highest)) for doc_id, elo in elos.items()}
    best = np.array([sorted(gain.values(), reverse=True)[:k]])
    got = np.array([[gain.get(doc_id, 0.0) for doc_id in ranked[:k]]])
    return float(dcg(got)[0] / dcg(best)[0]) if gain else 0.0


def pairwise_accuracy(ranked: Sequence[str], elos: Mapping[str, float]) -> float:
    """Share of the pairs of rated, ranked documents that stand in the order of their Elos.

    Pairs of equal Elos do not count; NaN where there is no other pair.
    """
    elo = np.array([elos[doc_id] for doc_id in ranked if doc_id in elos])
    above, below = np.triu_indices(len(elo), 1)
    d = elo[above] - elo[below]
    decided = d != 0
    return float((d[decided] > 0).mean()) if decided.any() else float("nan")


def top_recall(ranked: Sequence[str], elos: Mapping[str, float], k: int = 10) -> float:
    """Share of the `k` documents of highest Elo (of all, if fewer) among the first `k` ranked."""
    best = sorted(elos, key=lambda doc_id: -elos[doc_id])[:k]
    return len(set(best) & set(ranked[:k])) / len(best) if best else 0.0


class Agreement(NamedTuple):
    """How often labels and Elos find the same of two systems better; NaN where nothing counts."""

    of_systems: float  # by the mean over queries
    pairs: int  # of systems that both tell apart
    of_queries: float  # by the values of one query
    decided: int  # pairs of systems on one query that both tell apart


def agreement_of_verdicts(
    labels: Mapping[str, Sequence[float]], elos: Mapping[str, Sequence[float]]
) -> Agreement:
    """Agreement of two measures, each of which maps systems to values of the same queries."""
    systems = list(labels)
    means: list[tuple[float, float]] = []
    queries: list[tuple[float, float]] = []
    for i, a in enumerate(systems):
        for b in systems[i + 1 :]:
            by_label = np.asarray(labels[a]) - np.asarray(labels[b])
            by_elo = np.asarray(elos[a]) - np.asarray(elos[b])
            means.append((np.sign(by_label.mean()), np.sign(by_elo.mean())))
            queries += zip(np.sign(by_label), np.sign(by_elo), strict=True)
    return Agreement(*_agreeing(means), *_agreeing(queries))


def _agreeing(verdicts: Sequence[tuple[float, float]]) -> tuple[float, int]:
    same = [a == b for a, b in verdicts if a and b]
    return (float(np.mean(same)), len(same)) if same else (float("nan"), 0)
