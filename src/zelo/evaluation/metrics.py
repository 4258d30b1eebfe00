"""Retrieval measures with trec_eval's definitions, of many queries at once.

    NDCG@k       sum of the grades, each divided by log2(rank + 1), over that of the best ranking of
                 all judged documents, retrieved or not
    Recall@k     relevant documents among the first k, over all relevant documents
    Precision@k  relevant documents among the first k, over k
    MRR@k        1 / rank of the first relevant document
    MAP@k        precision at the rank of each relevant document, over all relevant documents
    Judged@k     share of the first k (of those that there are) that have a grade

Without `@k` the whole ranking counts. A document is relevant where its grade is at least 1;
negative grades and documents without a grade count as 0; a query without relevant documents scores
0. A ranking is a list, so that there are no ties to break (`zelo.data.trec` says how those of a
run are broken).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zelo.errors import UserError

Values = NDArray[np.float64]

METRICS = ("NDCG@10", "Recall@10", "Recall@100", "MRR@10", "MAP@100", "Precision@10", "Judged@10")
NAMES = ("NDCG", "Recall", "Precision", "MRR", "MAP", "Judged")


@dataclass(frozen=True)
class Graded:
    """Rankings of Q queries beside the grades of their documents, padded to K ranks.

    Queries (Q,) are in the order of the rankings.
    """

    grade_QK: Values  # at least 0; 0 where there is no grade, and beyond the ranking's end
    judged_QK: NDArray[np.bool_]
    length_Q: NDArray[np.int64]  # documents ranked
    best_QN: Values  # positive grades of all judged documents, highest first


def evaluate_rankings(
    rankings: Mapping[str, Sequence[str]],
    grades: Mapping[str, Mapping[str, float]],
    measures: Sequence[str] = METRICS,
) -> dict[str, Values]:
    """Each measure's values (Q,) for the queries of `rankings`, in their order.

    `rankings` has document ids, best first; `grades` has the grades of judged documents. Raises
    `UserError` where a measure's name is not known.
    """
    graded = align(rankings, grades)
    return {measure: evaluate_measure(graded, measure) for measure in measures}


def align(
    rankings: Mapping[str, Sequence[str]], grades: Mapping[str, Mapping[str, float]]
) -> Graded:
    """Look up the grade of every ranked document."""
    length_Q = np.array([len(ranked) for ranked in rankings.values()], dtype=np.int64)
    shape = len(rankings), int(length_Q.max(initial=1))
    grade_QK, judged_QK = np.zeros(shape), np.zeros(shape, dtype=np.bool_)
    best = []
    for q, (query_id, ranked) in enumerate(rankings.items()):
        known = grades.get(query_id, {})
        for k, doc_id in enumerate(ranked):
            grade = known.get(doc_id)
            if grade is not None:
                judged_QK[q, k] = True
                grade_QK[q, k] = max(grade, 0.0)
        best.append(sorted((grade for grade in known.values() if grade > 0), reverse=True))
    best_QN = np.zeros((len(best), max(map(len, best), default=0) or 1))
    for q, values in enumerate(best):
        best_QN[q, : len(values)] = values
    return Graded(grade_QK, judged_QK, length_Q, best_QN)


def evaluate_measure(graded: Graded, measure: str) -> Values:
    """One measure's values (Q,)."""
    name, k = parse(measure)
    grade_QK = graded.grade_QK[:, :k]
    relevant_QK = grade_QK >= 1
    relevant_Q = (graded.best_QN >= 1).sum(1)
    ranks = np.arange(1, grade_QK.shape[1] + 1)
    if name == "NDCG":
        return ratio(dcg(grade_QK), dcg(graded.best_QN[:, :k]))
    if name == "Recall":
        return ratio(relevant_QK.sum(1), relevant_Q)
    if name == "Precision":
        return ratio(relevant_QK.sum(1), np.full(len(relevant_Q), k) if k else graded.length_Q)
    if name == "MRR":
        return np.asarray((relevant_QK / ranks).max(1, initial=0.0))
    if name == "MAP":
        precision_QK = relevant_QK.cumsum(1) / ranks
        return ratio((precision_QK * relevant_QK).sum(1), relevant_Q)
    shown_Q = np.minimum(graded.length_Q, k) if k else graded.length_Q
    return ratio(graded.judged_QK[:, :k].sum(1), shown_Q)


def dcg(gain_QK: Values) -> Values:
    """Discounted cumulative gain (Q,) of gains (Q, K), best rank first: Σ gain / log2(rank + 1).

    Source: Järvelin and Kekäläinen, TOIS 2002.
    """
    return np.asarray(gain_QK @ (1 / np.log2(np.arange(2, gain_QK.shape[1] + 2))))


def ratio(part: NDArray[np.generic], whole: NDArray[np.generic]) -> Values:
    """part / whole, 0 where there is no whole."""
    part_Q, whole_Q = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part_Q, whole_Q, out=np.zeros(len(part_Q)), where=whole_Q > 0)


def parse(measure: str) -> tuple[str, int | None]:
    """Name and cutoff of a measure; `UserError` where there is no such measure."""
    match = re.fullmatch(rf"({'|'.join(NAMES)})(?:@([1-9]\d*))?", measure)
    if match is None:
        raise UserError(f"{measure}: no such measure; there are {', '.join(NAMES)}, with @k or not")
    return match[1], int(match[2]) if match[2] else None
