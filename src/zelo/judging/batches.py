"""Questions sent as batches, which providers answer within a day at half the price.

A batch is in the ledger before it leaves, with the questions in it: a run that is killed, or
another process with the same home a day later, finds it there and waits for it in place of asking
again. One that left just before a kill, so that its name at the provider was never written down, is
looked for at the provider. It is forgotten when all of its questions have answers in the ledger.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from zelo.judging import prompt
from zelo.judging.anthropic_batches import AnthropicBatchClient, message_headers
from zelo.judging.base import RequestContext
from zelo.judging.batch_client import ATTEMPTS, AnotherProgramError, BatchClient, BatchTroubleError
from zelo.judging.batch_ledger import Batch, BatchLedger
from zelo.judging.ledger import Key, key_of, ledger_question
from zelo.judging.question import Question
from zelo.judging.wire import RequestOutcome, Wire
from zelo.progress import say

OVER = {"completed", "expired", "cancelled", "failed"}
CANCELLING = {"cancelling", "canceling"}
NOT_THERE = "is not there: is it another account's?"
TIMES = 2  # that a question is sent in batches before it is asked by itself
FULL = "token_limit_exceeded"  # a batch failed since others are under way
LARGEST = 90 * 2**20  # bytes of a file
FINAL = {"reply", "cut_off", "refused", "too_long", "rejected"}  # what is read, or not sent again


class AskedInBatches(Protocol):
    """A session at an endpoint, as far as batches need it."""

    fingerprint: str
    depends_on_ids: ClassVar[bool]

    def body(self, question: Question) -> dict[str, Any]:
        """The request that asks a question."""
        ...

    def taken(self, outcome: RequestOutcome, question: Question, context: RequestContext) -> bool:
        """Hand on the answer that an outcome holds; False where there is none."""
        ...


@dataclass
class BatchRound:
    """Questions to one session, as far as they are asked in batches."""

    session: AskedInBatches
    client: BatchClient
    context: RequestContext
    book: BatchLedger
    known: Mapping[Key, Question]
    fresh: dict[Key, Question] = field(default_factory=dict)  # that are to be sent
    waiting: list[Batch] = field(default_factory=list)
    one_by_one: list[Question] = field(default_factory=list)
    times: Counter[Key] = field(default_factory=Counter)  # how often a question was sent
    open: int = 0  # questions that are counted as in flight

    @property
    def name(self) -> str:
        """Who is asked."""
        return self.client.wire.provider.name

    async def go(self) -> None:
        """Pick up what is under way, send the rest, and wait for all of it.

        Raises `BatchTroubleError`.
        """
        await self.pick_up()
        provider, context = self.client.wire.provider, self.context
        if provider.batch_cancel:
            sure = self.book.remotes()
            for batch in self.waiting:
                if batch.remote in sure:
                    await self.cancel(batch)
                else:
                    say(
                        f"  ! {self.name}: batch {batch.remote} may be another program's and is "
                        f"waited for"
                    )
        since = time.monotonic()  # the provider last answered
        while (self.fresh or self.waiting) and not context.stopping:
            while self.fresh and not context.stopping and await self.submit():
                pass
            if self.fresh and not self.waiting:  # what is left of the budget is for a few
                self.one_by_one += self.fresh.values()
                self.fresh.clear()
            for batch in list(self.waiting):
                try:
                    state = await self.client.state(str(batch.remote))
                except BatchTroubleError as trouble:
                    if trouble.gone:
                        raise self.without_end(batch, NOT_THERE) from None
                    if not trouble.passing or time.monotonic() - since > provider.patience:
                        raise
                    continue  # until the next look
                since = time.monotonic()
                if state.get("status") in OVER:
                    self.waiting.remove(batch)
                    await self.take(batch, state)
            if self.waiting and await context.sleep(provider.batch_poll):
                break
        if self.waiting:
            number = sum(len(batch.keys) for batch in self.waiting)
            say(
                f"  {self.name}: {number:,} questions are under way in batches; the same command "
                f"fetches their answers"
            )

    async def pick_up(self) -> None:
        """Find the batches that are under way, and what is left to be sent."""
        for batch in self.book.under_way():
            if self.known.keys().isdisjoint(batch.keys.values()):
                continue
            if batch.remote is None:
                remote = await self.client.named(batch)
                if remote is None and self.context.stopping:  # before it was looked for enough
                    continue
                if remote is None:  # it never left
                    self.cost(batch, dict.fromkeys(batch.keys, 0.0), counted=False)
                    self.book.forget(batch)
                    continue
                self.is_called(batch, remote, not self.client.guesses)
            self.wait_for(batch)
            self.context.spending.open += len(batch.keys) * (batch.run == self.context.run)
        if self.waiting:
            number = sum(len(batch.keys) for batch in self.waiting)
            say(f"  {self.name}: {number:,} questions were sent in batches before")
        flying = {key for batch in self.waiting for key in batch.keys.values()}
        self.again({key: q for key, q in self.known.items() if key not in flying})

    async def cancel(self, batch: Batch) -> None:
        """Have a batch cancelled, if it is not over; raises `BatchTroubleError`."""
        for attempt in range(ATTEMPTS):
            try:
                await self.client.cancel(str(batch.remote))
                say(f"  {self.name}: batch {batch.remote} is cancelled")
                return
            except BatchTroubleError as trouble:
                if trouble.gone:
                    raise self.without_end(batch, NOT_THERE) from None
                state = await self.client.state(str(batch.remote))
                if state.get("status") in OVER | CANCELLING:  # which some refuse as a conflict
                    return
                last = attempt + 1 == ATTEMPTS or not trouble.passing
                if last or await self.context.sleep(0.2 * 2**attempt):
                    raise

    def again(self, questions: Mapping[Key, Question]) -> None:
        """Have questions sent, or asked one by one where they are few, were sent before, or no
        batch is wanted any more."""
        provider = self.client.wire.provider
        live = provider.batch_cancel or len(questions) < provider.batch_least
        for key, question in questions.items():
            if live or self.times[key] >= TIMES:
                self.one_by_one.append(question)
            else:
                self.fresh[key] = question

    def is_called(self, batch: Batch, remote: str, sure: bool) -> None:
        """Note what the provider calls a batch, in the ledger too where that is sure."""
        batch.remote = remote
        if sure:
            self.book.has_left(batch, remote)

    def wait_for(self, batch: Batch) -> None:
        """Count a batch as in flight."""
        self.waiting.append(batch)
        self.times.update(batch.keys.values())
        number = len(batch.keys) * (batch.run == self.context.run)
        self.open += number
        self.context.spending.batched += number

    def cost(self, batch: Batch, costs: dict[int, float], counted: bool = True) -> None:
        """Count what questions of a batch did cost, in the place of what was reserved for them."""
        change = sum(usd - batch.reserved[n] for n, usd in costs.items())
        self.book.cost(batch, costs, self.context.run)
        if batch.run == self.context.run:
            self.context.spending.usd += change
            if counted:
                self.landed(len(costs))

    def landed(self, number: int) -> None:
        """Questions are in flight no more."""
        self.open -= number
        self.context.spending.open -= number
        self.context.spending.batched -= number

    def without_end(self, batch: Batch, what: str) -> BatchTroubleError:
        """What to say of a batch that stays on record until somebody decides what becomes of it."""
        drop = f"DELETE FROM batches WHERE name = '{batch.name}'"
        return BatchTroubleError(
            f"batch {batch.remote} {what}. To ask what it did not answer anew: sqlite3 "
            f'{self.context.ledger} "{drop}"'
        )

    async def submit(self) -> bool:
        """Send the first of the fresh questions as a batch, as many as fit into one and into the
        budget; whether it was worth one."""
        wire, spending = self.client.wire, self.context.spending
        before = spending.usd, spending.calls, spending.open
        lines: list[bytes] = []
        batch = Batch(uuid.uuid4().hex, None, prompt.SECRET, self.context.run, {}, {})
        size = 0
        for key, question in self.fresh.items():
            n = len(lines)
            line = self.client.line(batch, n, self.session.body(question))
            most = wire.usd(len(line), wire.max_tokens)  # no token is less than a byte
            full = n == wire.provider.batch_size or size + len(line) > LARGEST
            if (full and lines) or not spending.reserve(most):
                break
            batch.keys[n], batch.reserved[n] = key, most
            lines.append(line)
            size += len(line)
        enough = min(wire.provider.batch_least, wire.provider.batch_size)
        if len(lines) < min(len(self.fresh), enough):
            # Too few to wait a day for: nothing was reserved, nobody else had a turn meanwhile.
            spending.usd, spending.calls, spending.open = before
            return False
        self.book.keep(batch)
        self.wait_for(batch)
        await self.context.spending_recorded()
        try:
            self.is_called(batch, *await self.client.create(batch, lines))
        except BatchTroubleError as trouble:
            self.waiting.remove(batch)
            if not trouble.refused:
                raise  # where it is not known whether it left, the next run looks for it
            self.cost(batch, dict.fromkeys(batch.keys, 0.0))
            self.book.forget(batch)
            self.times.subtract(batch.keys.values())
            if trouble.passing and self.waiting:  # until some of those under way are done
                return False
            raise
        for key in batch.keys.values():
            del self.fresh[key]
        say(f"  {self.name}: batch {batch.remote}: {len(batch.keys):,} questions")
        return True

    def drop(self, batch: Batch, costs: dict[int, float]) -> None:
        """Forget a batch without results, and have its questions asked again."""
        self.cost(batch, costs)
        self.book.forget(batch)
        self.again({k: self.known[k] for k in batch.keys.values() if k in self.known})

    async def take(self, batch: Batch, state: Mapping[str, Any]) -> None:
        """Hand on the answers of a batch that is over, and have the rest asked again.

        The batch stays in the ledger until its answers are there: what is handed on here is written
        by another thread.
        """
        status = state.get("status")
        wire, context = self.client.wire, self.context
        try:
            results = await self.client.results(batch, state)
        except AnotherProgramError:
            if (remote := await self.client.named(batch)) is not None:
                self.is_called(batch, remote, not self.client.guesses)
                self.waiting.append(batch)
            elif not context.stopping:
                say(f"  {self.name}: a batch never left; its questions are sent now")
                self.times.subtract(batch.keys.values())
                self.drop(batch, dict.fromkeys(batch.keys, 0.0))
            return
        except BatchTroubleError as trouble:
            if not trouble.gone:
                raise
            say(f"  ! {self.name}: the results of batch {batch.remote} are not there any more")
            self.drop(batch, dict(batch.reserved))
            return
        outcomes = {n: outcome_of(result, wire) for n, result in results.items()}
        costs = {}
        for n, worst in batch.reserved.items():
            outcome, billed = outcomes.get(n) or (None, False)
            costs[n] = worst if billed is None else outcome.usd if outcome else 0.0
        self.cost(batch, costs)
        left: dict[Key, Question] = {}
        for n, key in batch.keys.items():
            question, (outcome, _) = self.known.get(key), outcomes.get(n) or (None, False)
            if question is None:
                continue
            if outcome is None or outcome.kind not in FINAL:
                context.count_failure(outcome.kind if outcome else str(status))
                left[key] = question
                continue
            with prompt.made_with(batch.secret):
                taken = self.session.taken(outcome, question, context)
            if not taken:
                self.one_by_one.append(question)
        if status == "failed":
            self.book.forget(batch)
            errors = (state.get("errors") or {}).get("data") or [{}]
            if errors[0].get("code") != FULL or not self.waiting:
                said = "; ".join(str(error.get("message")) for error in errors)
                raise BatchTroubleError(f"batch {batch.remote} failed: {said}")
            self.times.subtract(left.keys())
        if status == "cancelled" and left and not wire.provider.batch_cancel:
            raise BatchTroubleError(
                f"batch {batch.remote} was cancelled there. With provider.batch_cancel=true all "
                f"that is under way is cancelled, and what is not answered asked one by one"
            )
        self.again(left)


def not_under_way(
    session: AskedInBatches, questions: Sequence[Question], context: RequestContext
) -> Sequence[Question]:
    """The questions that are in no batch that was sent before."""
    with closing(BatchLedger(context.ledger, session.fingerprint)) as book:
        batches = book.under_way()
    if not batches:
        return questions
    sent = {key for batch in batches for key in batch.keys.values()}
    keys = keys_of(session, questions, context)
    return [q for q, key in zip(questions, keys, strict=True) if key not in sent]


def keys_of(
    session: AskedInBatches, questions: Sequence[Question], context: RequestContext
) -> Iterator[Key]:
    """What the ledger knows each question by."""
    for q in questions:
        yield key_of(context.kept_under(q), ledger_question(q, session.depends_on_ids))


async def answer_in_batches(
    session: AskedInBatches, questions: Sequence[Question], wire: Wire, context: RequestContext
) -> list[Question]:
    """Have the provider answer questions in batches, those that are under way among them, and hand
    on what comes; the questions that are to be asked one by one: few, or without an answer that can
    be read.

    `wire` has the price of a batch. Where the run is being stopped, batches stay under way. Raises
    `BatchTroubleError`.
    """
    known = dict(zip(keys_of(session, questions, context), questions, strict=True))
    with closing(BatchLedger(context.ledger, session.fingerprint)) as book:
        async with client_of(wire, book) as client:
            asked = BatchRound(session, client, context, book, known)
            try:
                await asked.go()
            finally:
                asked.landed(asked.open)
    return asked.one_by_one


@asynccontextmanager
async def client_of(wire: Wire, book: BatchLedger) -> AsyncIterator[BatchClient]:
    """The provider's endpoints, in the protocol that it speaks."""
    if wire.provider.batch_protocol == "openai":
        yield BatchClient(wire)
        return
    headers = {**message_headers(wire.key), **wire.provider.more_headers()}
    async with wire.provider.connect(headers) as http:
        yield AnthropicBatchClient.of(wire, http, book.remotes)


def outcome_of(result: Mapping[str, Any], wire: Wire) -> tuple[RequestOutcome | None, bool | None]:
    """What one request of a batch came to, and whether it was billed (None: not known); no outcome
    where it was not made."""
    response = result.get("response")
    if not isinstance(response, dict) or response.get("status_code") is None:
        return None, False
    return wire.outcome(int(response["status_code"]), response.get("body"))
