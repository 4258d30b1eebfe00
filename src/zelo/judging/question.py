"""What a judge is asked, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

ANSWERED = "answered"
FAILED = "failed"  # asked, and no usable answer came: asking again would not help
MISSING = "missing"  # no answer yet: the next run asks
NOT_A_NUMBER, OUT_OF_RANGE = "not_a_number", "out_of_range"


@dataclass(frozen=True, slots=True)
class Question:
    """One comparison as it is presented: `doc_a` first, `doc_b` second.

    `query_b` is the id of the query of `doc_b` where it is another one, `query_b_text` its text:
    the question is then which document serves its own query better. `instruction` is what its
    owner says makes a document relevant to the query, `instruction_b` the same of that of `doc_b`;
    "" where nothing is said.
    """

    query_id: str
    doc_a: str
    doc_b: str
    repeat: int  # how often this judge was asked the same before
    query: str  # the text, as are the next two
    text_a: str
    text_b: str
    query_b: str | None = None
    query_b_text: str = ""
    instruction: str = ""
    instruction_b: str = ""

    @property
    def pairs(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Texts of each document's query and of the document."""
        query_of_b = self.query if self.query_b is None else self.query_b_text
        return (self.query, self.text_a), (query_of_b, self.text_b)

    @property
    def instructions(self) -> tuple[str, str]:
        """The instruction of each document's query."""
        return self.instruction, self.instruction if self.query_b is None else self.instruction_b

    @property
    def ids(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Ids of each document's query and of the document."""
        return (self.query_id, self.doc_a), (self.query_b or self.query_id, self.doc_b)


def swapped(q: Question) -> Question:
    """The same comparison with the other document shown first."""
    if q.query_b is not None:
        q = replace(
            q,
            query_id=q.query_b,
            query=q.query_b_text,
            query_b=q.query_id,
            query_b_text=q.query,
            instruction=q.instruction_b,
            instruction_b=q.instruction,
        )
    return replace(q, doc_a=q.doc_b, doc_b=q.doc_a, text_a=q.text_b, text_b=q.text_a)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: a score in [−1, 1] (−1 the first document, +1 the second), or a failure.

    `score` is None exactly where `status` is not "answered": a failure is never a tie. `status`
    then names the kind of failure and `reasons` holds what came instead of an answer.
    """

    score: float | None
    status: str = ANSWERED
    reasons: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0


def checked(answer: Answer) -> Answer:
    """The answer, or a failed one where its score is not in [−1, 1]; its reasons are made valid
    UTF-8, since no file could hold them otherwise."""
    if not answer.reasons.isascii():
        answer = replace(answer, reasons=answer.reasons.encode("utf-8", "replace").decode())
    if answer.score is None or -1 <= answer.score <= 1:
        return answer
    status = NOT_A_NUMBER if math.isnan(answer.score) else OUT_OF_RANGE
    return replace(answer, score=None, status=status)
