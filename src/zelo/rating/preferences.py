"""Judgments of the same pair averaged to one preference (METHOD, stage 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zelo.artifacts import Table


@dataclass(frozen=True)
class Preferences:
    """Mean preference of the judges about each comparison that at least one of them answered."""

    query_ids: list[str]
    doc_a: list[str]
    doc_b: list[str]
    p: NDArray[np.float64]  # P(a ≻ b) in [0, 1]
    answers: NDArray[np.int64]  # answers that were averaged
    unanimous: NDArray[np.bool_]  # all of them chose the same document
    unanswered: list[tuple[str, str, str]]  # comparisons that every judge failed


def average(judgments: Table, vote: str) -> Preferences:
    """Average the answers to each pair, in whatever order and how often it was shown, and map to
    `p = (1 − mean) / 2` (METHOD, stage 2); a judge's answers count by its weight."""
    groups = votes_by_pair(judgments, vote)
    kept = [(key, votes) for key, votes in groups.items() if votes]
    return Preferences(
        query_ids=[q for (q, _, _, _), _ in kept],
        doc_a=[a for (_, a, _, _), _ in kept],
        doc_b=[b for (_, _, _, b), _ in kept],
        p=np.array([mean_preference(votes) for _, votes in kept], dtype=np.float64),
        answers=np.array([len(votes) for _, votes in kept], dtype=np.int64),
        unanimous=np.array([agree(votes) for _, votes in kept], dtype=np.bool_),
        unanswered=[(q, a, b) for (q, a, _, b), votes in groups.items() if not votes],
    )


Pair = tuple[str, str, str, str]  # query and document, of each of the two


class Vote(NamedTuple):
    """What a judge said of a pair, in [−1, 1], and how much that counts beside others."""

    value: float
    weight: float = 1.0


def votes_by_pair(judgments: Table, vote: str) -> dict[Pair, list[Vote]]:
    """Votes on each pair, in the order it was first shown in; none where every judge failed."""
    names = ("query_id", "doc_a", "query_b", "doc_b", "score", "weight")
    groups: dict[Pair, list[Vote]] = {}
    rows = zip(*(judgments[name].to_pylist() for name in names), strict=True)
    for q, a, r, b, score, weight in rows:
        r = q if r is None else r
        swapped = (r, b, q, a) in groups
        votes = groups[r, b, q, a] if swapped else groups.setdefault((q, a, r, b), [])
        if score is not None:
            value = float(np.sign(score)) if vote == "sign" else score
            votes.append(Vote(-value if swapped else value, 1.0 if weight is None else weight))
    return groups


def mean_preference(votes: Sequence[Vote]) -> float:
    """P(first ≻ second) by the weighted mean of votes."""
    total = sum(vote.value * vote.weight for vote in votes)
    return (1 - total / sum(vote.weight for vote in votes)) / 2


def agree(votes: Sequence[Vote]) -> bool:
    """Whether all votes name the same document, none a tie."""
    return all(vote.value < 0 for vote in votes) or all(vote.value > 0 for vote in votes)
