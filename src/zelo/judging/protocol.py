"""What a judge is asked, what it answers, and what it has to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

ANSWERED = "answered"
FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Question:
    """One comparison as it is presented: `doc_a` first, `doc_b` second."""

    query_id: str
    doc_a: str
    doc_b: str
    repeat: int
    query: str  # the text, as are the next two
    text_a: str
    text_b: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: a score in [−1, 1] (−1 the first document, +1 the second), or a failure.

    `score` is None exactly where `status` is not "answered": a failure is never a tie.
    """

    score: float | None
    status: str = ANSWERED
    reasons: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0


@runtime_checkable
class Judge(Protocol):
    """Anything that answers a comparison (`conf/judge/`)."""

    def prepare(self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int) -> PreparedJudge:
        """Get ready to be asked about `pairs` (query id → documents) of the collection `data`."""
        ...


class PreparedJudge(Protocol):
    """A judge with everything loaded that it needs to answer."""

    fingerprint: str  # of all that an answer depends on besides the question's own texts

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question, in their order."""
        ...
