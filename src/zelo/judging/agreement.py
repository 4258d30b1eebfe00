"""How judges behave: what they answer, whether they agree, whether what is shown first counts.

Shares of comparisons have intervals of 95 % that allow for a query's comparisons being alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zelo.artifacts import Table
from zelo.judging.question import ANSWERED, MISSING


@dataclass(frozen=True)
class JudgeCounts:
    """The answers of one judge, counted."""

    judge: str
    answers: int
    failed: dict[str, int]  # by kind
    missing: int
    ties: int
    first: float  # share of the decided answers that prefer what was shown first; NaN: none
    first_stderr: float


@dataclass(frozen=True)
class JudgeAgreement:
    """How often two judges that both decided chose the same document."""

    judge: str
    other: str
    both: int
    share: float  # NaN where `both` is 0
    low: float
    high: float


@dataclass(frozen=True)
class LabelAgreement:
    """How often a judge ordered two documents as their labels do; a tie is half right."""

    judge: str
    pairs: int  # that the judge answered and whose labels differ
    share: float  # NaN where there are none
    low: float
    high: float


class Choices(NamedTuple):
    """What each judge chose of each pair of documents."""

    judges: list[str]
    pairs: list[tuple[str, str, str]]  # query and its two documents
    sign: NDArray[np.float64]  # (pairs, judges): −1 the one, +1 the other, 0 a tie, NaN no answer


def judge_counts(judgments: Table) -> list[JudgeCounts]:
    """Counts per judge, in order of first appearance."""
    found = []
    for name in pc.unique(judgments["judge"]).to_pylist():
        rows = judgments.filter(pc.equal(judgments["judge"], name))
        kinds = {
            item["values"]: item["counts"] for item in pc.value_counts(rows["status"]).to_pylist()
        }
        score = np.asarray(rows["score"].drop_null())
        decided = int((score != 0).sum())
        first = float((score < 0).sum() / decided) if decided else float("nan")
        found.append(
            JudgeCounts(
                judge=name,
                answers=len(score),
                failed={k: n for k, n in kinds.items() if k not in (ANSWERED, MISSING)},
                missing=kinds.get(MISSING, 0),
                ties=len(score) - decided,
                first=first,
                first_stderr=float(np.sqrt(first * (1 - first) / decided)) if decided else first,
            )
        )
    return found


def choices(judgments: Table) -> Choices:
    """The sign of each judge's mean score for each pair, in whatever order it was shown."""
    answered = judgments.filter(pc.is_valid(judgments["score"]))
    swapped = pc.greater(answered["doc_a"], answered["doc_b"])
    keyed = pa.table(
        {
            "query_id": answered["query_id"],
            "one": pc.if_else(swapped, answered["doc_b"], answered["doc_a"]),
            "other": pc.if_else(swapped, answered["doc_a"], answered["doc_b"]),
            "judge": answered["judge"],
            "score": pc.if_else(swapped, pc.negate(answered["score"]), answered["score"]),
        }
    )
    names = pc.unique(judgments["judge"]).to_pylist()
    pairs = keyed.select(["query_id", "one", "other"]).group_by(["query_id", "one", "other"])
    pairs = pairs.aggregate([])
    ids = zip(*(pairs[name].to_pylist() for name in ("query_id", "one", "other")), strict=True)
    listed = list(ids)
    pairs = pairs.append_column("pair", pa.array(np.arange(len(pairs))))
    means = keyed.group_by(["query_id", "one", "other", "judge"]).aggregate([("score", "mean")])
    placed = means.join(pairs, keys=["query_id", "one", "other"])
    matrix = np.full((len(pairs), len(names)), np.nan)
    column = np.asarray(pc.index_in(placed["judge"], pa.array(names, pa.string())))
    matrix[np.asarray(placed["pair"]), column] = np.sign(np.asarray(placed["score_mean"]))
    return Choices(names, listed, matrix)


def agreements(found: Choices) -> list[JudgeAgreement]:
    """Agreement of every two judges, over the pairs that both of them decided."""
    names, pairs, sign = found
    queries = numbered(pairs)
    agreed = []
    for i, judge in enumerate(names):
        for j in range(i + 1, len(names)):
            decided = ~np.isnan(sign[:, i]) & ~np.isnan(sign[:, j])
            decided &= (sign[:, i] != 0) & (sign[:, j] != 0)
            same = (sign[decided, i] == sign[decided, j]).astype(np.float64)
            interval = share_of(same, queries[decided])
            agreed.append(JudgeAgreement(judge, names[j], len(same), *interval))
    return agreed


def label_agreements(
    found: Choices, grades: Mapping[str, Mapping[str, int]]
) -> list[LabelAgreement]:
    """How often each judge orders documents as their `grades` (query → document → grade) do.

    Documents without a label count as 0, as in NDCG; of a query without any nothing is said.
    """
    names, pairs, sign = found
    order = np.array(
        [
            np.sign(of.get(other, 0) - of.get(one, 0)) if (of := grades.get(query_id)) else 0
            for query_id, one, other in pairs
        ],
        dtype=np.float64,
    )
    queries = numbered(pairs)
    known = []
    for j, judge in enumerate(names):
        told = (order != 0) & ~np.isnan(sign[:, j])
        right = (sign[told, j] * order[told] + 1) / 2
        known.append(LabelAgreement(judge, len(right), *share_of(right, queries[told])))
    return known


def numbered(pairs: list[tuple[str, str, str]]) -> NDArray[np.int64]:
    """The number of each pair's query."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(pair[0], len(numbers)) for pair in pairs], dtype=np.int64)


def share_of(right: NDArray[np.float64], query: NDArray[np.int64]) -> tuple[float, float, float]:
    """Mean of `right` (n,), each in [0, 1], and an interval of 95 % for it; NaN where n is 0.

    It is Wilson's, for as many independent comparisons as would vary as much as the queries (n,)
    do: for no more than there are, and no fewer than there are queries.
    """
    n = len(right)
    if not n:
        return (float("nan"),) * 3
    share = float(right.mean())
    off = np.bincount(query, right - share)  # of each query, in all
    queries = len(np.unique(query))
    variance = float((off**2).sum()) / n**2
    alike = share * (1 - share) / variance if variance > 0 else queries
    size, z = min(max(alike, queries), n), 1.959964
    middle = (share + z**2 / (2 * size)) / (1 + z**2 / size)
    half = z * np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2)) / (1 + z**2 / size)
    return share, max(middle - float(half), 0.0), min(middle + float(half), 1.0)


def consensus(found: Choices) -> float | None:
    """Share of the pairs with answers of several judges for which all chose the same document."""
    several = found.sign[(~np.isnan(found.sign)).sum(1) > 1]
    if not len(several):
        return None
    low, high = np.nanmin(several, 1), np.nanmax(several, 1)
    return float(((low == high) & (low != 0)).mean())
