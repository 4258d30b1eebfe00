"""How judges behave: what they answer, whether they agree, whether what is shown first counts."""

from __future__ import annotations

from dataclasses import dataclass

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


def choices(judgments: Table) -> tuple[list[str], NDArray[np.float64]]:
    """Judges (J), and the sign of each one's mean score for each pair (pairs, J): −1 the one
    document, +1 the other, 0 a tie, NaN no answer."""
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
    pairs = pairs.append_column("pair", pa.array(np.arange(len(pairs))))
    means = keyed.group_by(["query_id", "one", "other", "judge"]).aggregate([("score", "mean")])
    placed = means.join(pairs, keys=["query_id", "one", "other"])
    matrix = np.full((len(pairs), len(names)), np.nan)
    column = np.asarray(pc.index_in(placed["judge"], pa.array(names, pa.string())))
    matrix[np.asarray(placed["pair"]), column] = np.sign(np.asarray(placed["score_mean"]))
    return names, matrix


def agreements(judgments: Table) -> list[JudgeAgreement]:
    """Agreement of every two judges, over the pairs that both of them decided."""
    names, sign = choices(judgments)
    found = []
    for i, judge in enumerate(names):
        for j in range(i + 1, len(names)):
            decided = ~np.isnan(sign[:, i]) & ~np.isnan(sign[:, j])
            decided &= (sign[:, i] != 0) & (sign[:, j] != 0)
            both = int(decided.sum())
            same = float((sign[decided, i] == sign[decided, j]).mean()) if both else float("nan")
            found.append(JudgeAgreement(judge, names[j], both, same))
    return found


def consensus(judgments: Table) -> float | None:
    """Share of the pairs with answers of several judges for which all chose the same document."""
    _, sign = choices(judgments)
    several = sign[(~np.isnan(sign)).sum(1) > 1]
    if not len(several):
        return None
    low, high = np.nanmin(several, 1), np.nanmax(several, 1)
    return float(((low == high) & (low != 0)).mean())
