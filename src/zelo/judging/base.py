"""What a judge has to be: a component, and the session that it opens to be asked.

A judge is chosen by configuration (`conf/judge/`) and says of itself what must be known before
anything is asked. `prepare` returns a session, which has loaded what it needs and answers: a
`LocalSession` computes here, a `RemoteSession` is asked over a network.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from zelo.config import Component
from zelo.judging.estimate import JudgeEstimate, JudgeWorkload, LocalReading, TextLengths
from zelo.judging.limits import Limiter
from zelo.judging.question import Answer, Question
from zelo.judging.spending import Spending

STOP_CHECK = 0.5  # seconds after which one that waits looks whether there is still a reason to


class JudgeSession(ABC):
    """A judge that is ready to be asked."""

    fingerprint: str  # of all that an answer depends on besides the question's own texts

    depends_on_ids: ClassVar[bool] = False
    """Whether an answer depends on the ids of query and documents too, not on the texts alone."""

    logit_scale: float | None = None
    """Factor of the difference of two scores that is its log-odds; None: it has no scores."""

    grades_documents: ClassVar[bool] = False
    """Whether it is asked about one document at a time, and compares two by its grades."""

    can_be_asked: ClassVar[bool] = True
    """Whether there is anybody to ask: again what failed, and what is missing."""

    may_guess: ClassVar[bool] = False
    """Whether it is first asked a few comparisons in both orders, to notice that it guesses."""

    @property
    def reads_instructions(self) -> bool:
        """Whether an answer depends on `Question.instruction` too. Of one that does not, answers
        are the same with and without it."""
        return False

    def compared(self, first: Answer, second: Answer) -> Answer:
        """What the answers about two documents say of them, of one that `grades_documents`."""
        raise NotImplementedError

    def in_its_order(self, question: Question) -> Question:
        """The comparison in the order in which this judge is to be shown it; here as it stands."""
        return question

    def count_truncated(self, texts: Sequence[str]) -> int | None:
        """How many of `texts` it is shown only the beginning of; None: it truncates none."""
        return None


class LocalSession(JudgeSession):
    """A judge that computes its answers in this process, or in processes that it started."""

    questions_per_batch: ClassVar[int] = 1024
    """Questions it is asked at once. After a kill a batch is there as a whole or asked again, so
    that slow judges have fewer."""

    @abstractmethod
    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """One answer per question, in their order."""

    def answer_in_one_order(self, questions: Sequence[Question]) -> list[Answer]:
        """The same of each question as it is shown, by a judge that otherwise averages two
        orders."""
        return self.answer(questions)


class RemoteSession(JudgeSession):
    """A judge that is asked over a network, many questions at a time."""

    may_guess: ClassVar[bool] = True

    @abstractmethod
    def check(self, spending: Spending) -> None:
        """Raise `UserError` where it cannot be asked (no key, say); called if it has to be."""

    @abstractmethod
    async def answer_each(self, questions: Sequence[Question], context: RequestContext) -> None:
        """Hand each answer to `context.deliver` as it comes; what is not answered stays missing."""


class BaseJudge(Component):
    """Anything that answers which of two documents is more relevant (`conf/judge/`).

    A judge of your own has `prepare`, and overrides of the rest what is not true of it.
    """

    compares_queries: ClassVar[bool] = False
    """Whether it can compare documents of two queries, each with its own (`cross=on`)."""

    orders_lists: ClassVar[bool] = False
    """Whether it can order a block of documents at once (`sampler=blocks`)."""

    most_in_block: ClassVar[int | None] = None
    """How many documents a block may have that it orders; None: any number."""

    usd_per_answer: ClassVar[float | None] = None
    """What an answer costs; 0 where it costs nothing, None where that is not known."""

    @property
    def knows_given_queries_only(self) -> bool:
        """Whether it answers from labels or records of the collection's own queries, and so cannot
        answer about queries that are written."""
        return False

    @abstractmethod
    def prepare(self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int) -> JudgeSession:
        """Get ready to be asked about `pairs` (query id → documents) of the collection `data`."""

    def prepare_lists(
        self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int
    ) -> JudgeSession:
        """Get ready to be asked about blocks, as `zelo.judging.lists` words a question; of a judge
        that `orders_lists`."""
        raise NotImplementedError

    def estimate(self, name: str, workload: JudgeWorkload) -> JudgeEstimate | None:
        """What it would be asked and cost under the name `name`; None where it costs nothing.

        Here by `usd_per_answer`; nothing is called.
        """
        if self.usd_per_answer == 0:
            return None
        usd = None
        if self.usd_per_answer is not None:
            least, most = workload.calls
            usd = (least * self.usd_per_answer, most * self.usd_per_answer)
        return JudgeEstimate(name, type(self).__name__, name, workload.calls, usd=usd)

    def local_reading(self, lengths: TextLengths) -> LocalReading | None:
        """What a model of its own reads on this machine; None: it has none."""
        return None


@dataclass
class RequestContext:
    """What a remote session needs while it is asked, and reports to; belongs to one event loop."""

    deliver: Callable[[Question, Answer], None]
    count_failure: Callable[[str], None]  # told the kind of each failed attempt
    spending: Spending
    limiters: dict[str, Limiter]  # of the providers that are asked, by name
    stop: asyncio.Event  # set when the user wants to stop
    spending_recorded: Callable[[], Awaitable[None]]  # waits for the ledger to hold reservations
    ledger: Path  # where batches under way are written down
    run: str  # what is spent counts for it
    kept_under: Callable[[Question], str]  # the fingerprint that the answer to a question gets
    has_usable_answer: bool = False  # whether the ledger has one of this judge that is no failure
    given_up: str = ""  # why the judge is not asked any more, in words

    @property
    def stopping(self) -> bool:
        """Whether no new request may be sent."""
        return self.stop.is_set() or self.spending.exhausted or bool(self.given_up)

    async def sleep(self, seconds: float) -> bool:
        """Sleep, not longer than there is something to wait for; whether no request may follow."""
        end = time.monotonic() + seconds
        while not self.stopping and (left := end - time.monotonic()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), min(left, STOP_CHECK))
        return self.stopping
