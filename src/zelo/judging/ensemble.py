"""A set of judges whose answers are averaged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zelo.artifacts import Table
from zelo.config import Component, option
from zelo.judging.protocol import Judge


class Ensemble(Component):
    """Judges, and how their answers become one preference (`conf/judge/`)."""

    judges: dict[str, Judge] = option(help="who is asked, by name", min_length=1)
    vote: str = option(
        "soft",
        "`sign` clamps each score to {−1, 0, 1} before averaging, as in the paper; `soft` keeps "
        "strengths",
        pattern="^(soft|sign)$",
    )


@dataclass(frozen=True)
class Preferences:
    """What an ensemble says of each comparison that at least one judge answered."""

    query_ids: list[str]
    doc_a: list[str]
    doc_b: list[str]
    p: NDArray[np.float64]  # P(a ≻ b) in [0, 1]
    answers: NDArray[np.int64]  # judges that answered
    unanimous: NDArray[np.bool_]  # all that answered chose the same document
    unanswered: list[tuple[str, str, str]]  # comparisons that every judge failed


def average(judgments: Table, vote: str) -> Preferences:
    """Average over judges and map to `p = (1 − mean) / 2` (METHOD, stage 2)."""
    names = ("query_id", "doc_a", "doc_b", "repeat", "score")
    groups: dict[tuple[str, str, str, int], list[float]] = {}
    for query_id, a, b, repeat, score in zip(
        *(judgments[name].to_pylist() for name in names), strict=True
    ):
        votes = groups.setdefault((query_id, a, b, repeat), [])
        if score is not None:
            votes.append(float(np.sign(score)) if vote == "sign" else score)
    kept = [(key, votes) for key, votes in groups.items() if votes]
    return Preferences(
        query_ids=[key[0] for key, _ in kept],
        doc_a=[key[1] for key, _ in kept],
        doc_b=[key[2] for key, _ in kept],
        p=np.array([(1 - sum(votes) / len(votes)) / 2 for _, votes in kept], dtype=np.float64),
        answers=np.array([len(votes) for _, votes in kept], dtype=np.int64),
        unanimous=np.array([agree(votes) for _, votes in kept], dtype=np.bool_),
        unanswered=[key[:3] for key, votes in groups.items() if not votes],
    )


def agree(votes: Sequence[float]) -> bool:
    """Whether all votes name the same document, none a tie."""
    return all(vote < 0 for vote in votes) or all(vote > 0 for vote in votes)
