"""What a judge is asked, what it answers, and what it has to be."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from zelo.judging.limits import Limiter
    from zelo.judging.spending import Spending

ANSWERED = "answered"
FAILED = "failed"  # asked, and no usable answer came: asking again would not help
MISSING = "missing"  # no answer yet: the next run asks
NOT_A_NUMBER, OUT_OF_RANGE = "not_a_number", "out_of_range"
GLANCE = 0.5  # seconds after which one that waits looks whether there is still a reason to


@dataclass(frozen=True, slots=True)
class Question:
    """One comparison as it is presented: `doc_a` first, `doc_b` second.

    `query_b` is the query of `doc_b` where it is another one, `other` its text: the question is
    then which document serves its own query better.
    """

    query_id: str
    doc_a: str
    doc_b: str
    repeat: int  # how often this judge was asked the same before
    query: str  # the text, as are the next two
    text_a: str
    text_b: str
    query_b: str | None = None
    other: str = ""

    @property
    def pairs(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Texts of each document's query and of the document."""
        other = self.query if self.query_b is None else self.other
        return (self.query, self.text_a), (other, self.text_b)

    @property
    def ids(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Ids of each document's query and of the document."""
        return (self.query_id, self.doc_a), (self.query_b or self.query_id, self.doc_b)


def filed(judge: PreparedJudge, q: Question) -> Question:
    """The question as the ledger knows it: by its texts and, if its judge goes by ids, by those.

    One across queries is known by both, and by the prompt that is written for such.
    """
    query = q.query
    if q.query_b is not None:
        from zelo.judging.prompt import prompt_hash

        query = joined(prompt_hash("cross"), query, q.other)
    if not getattr(judge, "goes_by_ids", False):
        return replace(q, query=query)
    a, b = joined(q.doc_a, q.text_a), joined(q.doc_b, q.text_b)
    if q.query_b is None:
        return replace(q, query=joined(q.query_id, query), text_a=a, text_b=b)
    # `query` is joined already
    return replace(q, query=f"{joined(q.query_id, q.query_b)}\0{query}", text_a=a, text_b=b)


def joined(*parts: str) -> str:
    """Parts as one text that no other parts give: what separates them is escaped in them."""
    return "\0".join(part.replace("\1", "\1\1").replace("\0", "\1\2") for part in parts)


def turned(q: Question) -> Question:
    """The same comparison presented the other way round."""
    if q.query_b is not None:
        q = replace(q, query_id=q.query_b, query=q.other, query_b=q.query_id, other=q.query)
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
    """The answer, or a failed one where its score is none in [−1, 1]; reasons without halves of
    characters, which no file could hold."""
    if not answer.reasons.isascii():
        answer = replace(answer, reasons=answer.reasons.encode("utf-8", "replace").decode())
    if answer.score is None or -1 <= answer.score <= 1:
        return answer
    status = NOT_A_NUMBER if math.isnan(answer.score) else OUT_OF_RANGE
    return replace(answer, score=None, status=status)


@runtime_checkable
class Judge(Protocol):
    """Anything that answers a comparison (`conf/judge/`).

    Two things it may say of itself, as attributes of its class, so that they are known before
    anything is asked: `across = True` where it can compare documents of different queries, and
    `usd_per_answer`, what an answer costs; 0 for one that costs nothing. (`ApiJudge` is paid by
    the token and says neither price.)
    """

    def prepare(self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int) -> PreparedJudge:
        """Get ready to be asked about `pairs` (query id → documents) of the collection `data`."""
        ...


class Batched(Protocol):
    """A judge that computes its answers here, with everything loaded that it needs.

    One whose answer depends on ids, not on texts alone, has `goes_by_ids = True`; one that is slow
    has a `lot`, questions at once, smaller than 1,024: a lot is kept whole or, after a kill, asked
    again.
    """

    fingerprint: str  # of all that an answer depends on besides the question's own texts

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question, in their order."""
        ...


@runtime_checkable
class Remote(Protocol):
    """A judge that is asked over a network, many questions at a time."""

    fingerprint: str

    def ready(self, spending: Spending) -> None:
        """Raise `UserError` where it cannot be asked (no key, say); called if it has to be."""
        ...

    async def answer_each(self, questions: Sequence[Question], asking: Asking) -> None:
        """Hand each answer to `asking.deliver` as it comes; what is not answered stays missing."""
        ...


PreparedJudge = Batched | Remote


@runtime_checkable
class Cutting(Protocol):
    """A judge that is shown only the beginning of long texts."""

    def documents_cut(self, texts: Sequence[str]) -> int:
        """How many of `texts` it is shown only the beginning of."""
        ...


@runtime_checkable
class InOneOrder(Protocol):
    """A judge here that can say what it thinks of one order alone, before two are averaged."""

    def in_one_order(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question, as it is shown."""
        ...


@dataclass
class Asking:
    """What a remote judge needs while it is asked, and reports to; belongs to one event loop."""

    deliver: Callable[[Question, Answer], None]
    trouble: Callable[[str], None]  # told the kind of each failed attempt
    spending: Spending
    limiters: dict[str, Limiter]  # of the providers that are asked, by name
    stop: asyncio.Event  # set when the user wants to stop
    covered: Callable[[], Awaitable[None]]  # waits until the ledger counts what is reserved
    usable: bool = False  # whether the ledger has an answer of this judge that is no failure
    down: str = ""  # why the judge was given up, in words

    @property
    def stopping(self) -> bool:
        """Whether no new request may be sent."""
        return self.stop.is_set() or self.spending.exhausted or bool(self.down)

    async def rest(self, seconds: float) -> bool:
        """Sleep, not longer than there is something to wait for; whether no request may follow."""
        end = time.monotonic() + seconds
        while not self.stopping and (left := end - time.monotonic()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), min(left, GLANCE))
        return self.stopping
