"""A language model behind an OpenAI-compatible endpoint, as a judge.

The `openai` SDK holds the account (key, organisation, project, endpoint, headers). Requests are
posted by aiohttp: the SDK's own way to send one costs ten times its CPU time
(`benchmarks/judging.py`). What may go wrong with a request has one of these names, each counted:

    again, later     rate_limited  server_error  timeout  connection  truncated  invalid_json
    asked once more  empty  thoughts_only  unparsable  not_a_number  out_of_range  cut_off
    not again        refused  too_long  no_logprobs  no_letter  no_grade
    the judge        unauthorised  rejected
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import field_validator

from zelo.config import option
from zelo.data.token_estimate import estimated_tokens
from zelo.errors import UserError, in_words
from zelo.judging import list_form, prompt
from zelo.judging.base import BaseJudge, RemoteSession, RequestContext
from zelo.judging.batch_client import BatchTroubleError
from zelo.judging.batches import answer_in_batches, not_under_way
from zelo.judging.endpoint import FIRST_WAIT, wait_before_retry
from zelo.judging.estimate import JudgeEstimate, JudgeWorkload
from zelo.judging.held_answers import TRIAL, HeldAnswers
from zelo.judging.ledger import Ledger
from zelo.judging.limits import Limiter
from zelo.judging.prices import entry_of, price_of
from zelo.judging.provider import Provider
from zelo.judging.question import Answer, Question
from zelo.judging.reply import Reply, form, read_reply
from zelo.judging.spending import Price, Spending
from zelo.judging.wire import RequestOutcome, Wire
from zelo.progress import say
from zelo.store import digest

SCORE = {"type": "number", "description": "between -1 (A) and 1 (B)"}
FORMATS = form("comparison", {"reasons": {"type": "string"}, "score": SCORE})
LABEL_TOKENS = 6.0  # of a document's label in an order, with what is around it
NOT_AGAIN = {"refused", "too_long"}
SHORTEST_WAIT = 0.01  # seconds of the first backoff where the provider says how long to wait
PROMPTS = ("compare", "cross", "instruction", "order", "best")
OWN_FIELDS = {
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "response_format",
    "n",
    "stream",
}


class ApiJudge(BaseJudge):
    """One model of one provider, asked by the prompt in `prompts/compare.md`."""

    compares_queries: ClassVar[bool] = True
    orders_lists: ClassVar[bool] = True
    provider: Provider = option(help="where it is asked")
    model: str = option(help="its name there")
    max_document_tokens: int = option(
        1000, "of each document at most about so many tokens are shown", ge=16
    )
    max_tokens: int = option(1024, "most tokens it may write", ge=16)
    temperature: float | None = option(None, "null: the endpoint's default", ge=0, le=2)
    system_role: bool = option(
        True,
        "false: the instructions begin the user's message, for models that know no system role",
    )
    lists: str = option(
        "order",
        "what it is asked of a block of documents (`sampler=blocks`): to `order` it, or which is "
        "the `best`",
        pattern="^(order|best)$",
    )
    extra_body: dict[str, Any] = option(
        {}, "more fields of the request (reasoning_effort, top_p, ...)"
    )
    expected_output_tokens: int = option(
        150, "written for one answer, for `zelo plan` until the ledger knows", ge=1, exclude=True
    )
    price: Price | None = option(None, "null: as in conf/prices.yaml", exclude=True)

    @field_validator("extra_body")
    @classmethod
    def _no_own_field(cls, extra: dict[str, Any]) -> dict[str, Any]:
        if taken := OWN_FIELDS & extra.keys():
            raise ValueError(
                f"{', '.join(sorted(taken))}: set by the judge's own options, which the budget "
                f"is reckoned with"
            )
        return extra

    def fingerprint(self) -> str:
        """Digest of the prompts."""
        return digest([prompt.prompt_hash(name) for name in PROMPTS])

    def prepare(self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int) -> ApiSession:
        """Nothing is loaded and no key is read before there is something to ask."""
        return ApiSession(self.session_fingerprint(), self)

    def prepare_lists(
        self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int
    ) -> ApiSession:
        """Nothing is loaded here either."""
        session = OrderSession if self.lists == "order" else BestSession
        return session(self.session_fingerprint(self.lists), self)

    def session_fingerprint(self, name: str = "compare") -> str:
        """Digest of all that an answer to the prompt `name` depends on besides the texts."""
        asked = [self.provider.name, self.model, prompt.prompt_hash(name), self.max_document_tokens]
        how = [self.max_tokens, self.temperature, self.extra_body, self.provider.structured]
        how += [] if self.system_role else ["no system role"]
        return digest(["api", *asked, *how])

    def estimate(
        self, name: str, workload: JudgeWorkload, asked_by: str = "compare", documents: float = 2
    ) -> JudgeEstimate:
        """Paid by the token: as many as its answers in the ledger had, or else as estimated.

        `asked_by` is the name of the prompt, `documents` how many it shows.
        """
        written: float = self.expected_output_tokens
        if workload.blocks:
            documents, asked_by = workload.blocks.documents, self.lists
            written = LABEL_TOKENS * (documents if asked_by == "order" else 1)
        least, most = (calls + workload.probe_calls for calls in workload.calls)
        measured, tokens_in, tokens_out = 0, 0.0, 0.0
        # Of blocks the ledger does not know how large they were.
        if workload.ledger.is_file() and not workload.blocks:
            with Ledger(workload.ledger) as ledger:
                measured, tokens_in, tokens_out = ledger.mean_tokens(
                    self.session_fingerprint(asked_by)
                )
        if not measured:
            parts = prompt.sections(asked_by)
            frame = estimated_tokens(parts["system"]) + estimated_tokens(parts["user"])
            each = estimated_tokens(parts.get("document", ""))
            lengths = workload.lengths
            document = lengths.truncated(self.max_document_tokens)
            told = lengths.instruction_tokens + lengths.query_tokens
            tokens_in = frame + told + documents * (each + document)
            tokens_out = written
        price = self.price_or_none()
        half = self.provider.batch and not self.provider.batch_cancel
        price = price.half() if price and half else price
        usd = price.of(tokens_in, tokens_out) if price else None
        provider = self.provider
        hours = [
            least * amount / limit / 60
            for amount, limit in (
                (1.0, provider.requests_per_minute),
                (tokens_in + tokens_out, provider.tokens_per_minute),
            )
            if limit
        ]
        return JudgeEstimate(
            judge=name,
            model=self.model,
            provider=provider.name,
            calls=(least, most),
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            usd=None if usd is None else (least * usd, most * usd),
            hours=max(hours, default=None),
            measured=measured,
            price_doubts=self.price_doubts(workload.today),
        )

    @property
    def listed_as(self) -> str:
        """Its name in the price list."""
        return f"{self.provider.name}/{self.model}"

    def price_or_none(self) -> Price | None:
        """What it costs, as configured or listed."""
        return self.price or price_of(self.listed_as)

    def price_doubts(self, today: date) -> str | None:
        """What speaks against its listed price, if that is the one it has."""
        entry = None if self.price is not None else entry_of(self.listed_as)
        return None if entry is None else entry.doubts(today)

    def body(
        self, messages: prompt.Messages, formats: Mapping[str, Any] = FORMATS
    ) -> dict[str, Any]:
        """The request; `formats` are what it says of the reply's form, by `provider.structured`."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            self.provider.token_limit_field: self.max_tokens,
        }
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.provider.structured in formats:
            body["response_format"] = formats[self.provider.structured]
        return body | self.extra_body


@dataclass
class Tally:
    """Tokens and money of all requests for one question."""

    tokens_in: int = 0
    tokens_out: int = 0
    usd: float = 0.0

    def answer(self, score: float | None, status: str, reasons: str) -> Answer:
        """An answer that cost so much."""
        return Answer(score, status, reasons, self.tokens_in, self.tokens_out, self.usd)


@dataclass
class ApiSession(RemoteSession):
    """An API judge that is ready to be asked.

    A session that asks something else than which document is better has another `prompt_for`,
    `formats`, `read` and `kept`.
    """

    formats: ClassVar[Mapping[str, Any]] = FORMATS
    corrects: ClassVar[bool] = True  # whether it is told once what was wrong with its answer
    fingerprint: str
    judge: ApiJudge
    read_tokens: int = field(default=0, init=False)  # of all requests so far
    cached_tokens: int = field(default=0, init=False)  # of those, that the provider had kept
    held: HeldAnswers = field(init=False)

    def __post_init__(self) -> None:
        self.held = HeldAnswers(self.judge.max_tokens, self.judge.max_document_tokens)

    def prompt_for(self, question: Question) -> str:
        """The name of the prompt that asks a question."""
        return "compare" if question.query_b is None else "cross"

    def messages(self, question: Question) -> prompt.Messages:
        """The conversation that asks a question."""
        limit = self.judge.max_document_tokens
        return prompt.messages(question, limit, name=self.prompt_for(question))

    def conversation(self, question: Question) -> prompt.Messages:
        """The same as the judge's model takes it."""
        said = self.messages(question)
        return said if self.judge.system_role else prompt.as_user_message(said)

    def body(self, question: Question) -> dict[str, Any]:
        """The request that asks a question for the first time."""
        return self.judge.body(self.conversation(question), self.formats)

    def read(self, outcome: RequestOutcome, question: Question) -> Reply:
        """What a reply to a question says."""
        whole = outcome.kind == "reply"
        reply = read_reply(outcome.text, whole)
        return reply if whole or reply.score is not None else replace(reply, problem="cut_off")

    def kept(self, reply: Reply, thoughts: str) -> str:
        """What the ledger keeps of a reply, and of what the endpoint has beside it."""
        return f"{thoughts}\n\n{reply.reasons}".strip()

    def check(self, spending: Spending) -> None:
        """`UserError` where key, packages or, under a budget in USD, the price are missing."""
        self.judge.provider.key()
        self.judge.provider.more_headers()
        try:
            import aiohttp  # noqa: F401
            import openai  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"judge {self.judge.provider.name}: package {error.name} is missing; "
                f"pip install 'zelo[llm]'"
            ) from None
        if self.judge.price_or_none() is None:
            if spending.budget.usd is None:
                say_unpriced(self.judge.listed_as)
                return
            raise UserError(
                f"budget.usd: the price of {self.judge.listed_as} is not in conf/prices.yaml; "
                f"set it with judge.judges.NAME.price="
                f"'{{_target_: zelo.judging.spending.Price, input: USD, output: USD}}' per million "
                f"tokens"
            )

    @property
    def reads_instructions(self) -> bool:
        """They are part of the prompt."""
        return True

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many of `texts` are longer than what is shown of a document."""
        limit = self.judge.max_document_tokens
        return sum(bool(prompt.shown(text, limit)[1]) for text in texts)

    async def answer_each(self, questions: Sequence[Question], context: RequestContext) -> None:
        """Ask all of `questions`, as many at once as the provider allows, in their order: those of
        one query come together, and begin alike."""

        provider = self.judge.provider
        limiter = context.limiters.get(provider.name)
        if limiter is None:
            limiter = context.limiters[provider.name] = Limiter(
                provider.in_flight, provider.requests_per_minute, provider.tokens_per_minute
            )
        key = provider.key()
        self.held.begin(context)
        async with provider.connect(provider.account_headers(key)) as http:
            judge = self.judge
            price, shown = judge.price_or_none(), judge.max_document_tokens
            wire = Wire(provider, price, judge.max_tokens, shown, http, limiter, context, key)
            if provider.batch or provider.batch_cancel:
                half = replace(wire, price=price and price.half())
                questions = await self._in_batches(questions, wire, half, context)
            else:
                asked = len(questions)
                questions = not_under_way(self, questions, context)
                if left := asked - len(questions):
                    say(
                        f"  ! {provider.name}: {left:,} questions are under way in batches and not "
                        f"asked: provider.batch=true waits for them, provider.batch_cancel=true "
                        f"cancels them"
                    )
            await self._one_by_one(questions, wire, context)
        self.held.end()

    async def _in_batches(
        self, questions: Sequence[Question], wire: Wire, half: Wire, context: RequestContext
    ) -> Sequence[Question]:
        """Ask as many as can be in batches, after a few have shown that answers are of use; the
        questions that are to be asked one by one."""
        if not self.held.usable and not wire.provider.batch_cancel:
            await self._one_by_one(questions[:TRIAL], wire, context)
            questions = questions[TRIAL:]
        if context.given_up or not (self.held.usable or wire.provider.batch_cancel):
            return questions
        try:
            return await answer_in_batches(self, questions, half, context)
        except BatchTroubleError as trouble:
            context.given_up = str(trouble)
            return []

    async def _one_by_one(
        self, questions: Sequence[Question], wire: Wire, context: RequestContext
    ) -> None:
        """Ask questions, as many at once as the provider allows."""
        supply = iter(questions)
        async with asyncio.TaskGroup() as group:
            async with asyncio.TaskGroup() as first:
                for number in range(min(wire.provider.in_flight, len(questions))):
                    late = number >= TRIAL
                    (group if late else first).create_task(self._work(supply, wire, context, late))
            self.held.proved.set()

    async def _work(
        self, supply: Iterator[Question], wire: Wire, context: RequestContext, late: bool
    ) -> None:
        if late:
            await self.held.proved.wait()
        for question in supply:
            if context.stopping:
                return
            try:
                answer = await self._ask(question, wire)
            except Exception as error:  # the other requests come home all the same
                context.given_up = in_words(error)
                return
            if answer is not None:
                self.held.take(question, answer)
            elif not context.stopping:
                self.held.no_answer(wire.last_trouble)

    def taken(self, outcome: RequestOutcome, question: Question, context: RequestContext) -> bool:
        """Hand on the answer that an outcome of a batch holds; False where it has to be asked for
        again, since it cannot be read."""
        tally = Tally(outcome.tokens_in, outcome.tokens_out, outcome.usd)
        self.read_tokens += outcome.tokens_in
        self.cached_tokens += outcome.tokens_cached
        if outcome.kind == "rejected":
            self.held.reject(question, tally.answer(None, outcome.kind, outcome.text))
            return True
        if outcome.kind in NOT_AGAIN:
            self.held.take(question, tally.answer(None, outcome.kind, outcome.text))
            return True
        reply = self.read(outcome, question)
        if reply.score is not None:
            reasons = self.kept(reply, outcome.thoughts)
            self.held.take(question, tally.answer(reply.score, "answered", reasons))
            return True
        context.count_failure(reply.problem)
        if self.corrects:
            return False
        self.held.take(question, tally.answer(None, reply.problem, outcome.text))
        return True

    async def _ask(self, question: Question, wire: Wire) -> Answer | None:
        """The answer to one question, asked again as often as that may help; None: none now."""
        conversation = asked = self.conversation(question)
        tally = Tally()
        corrected = False
        failures, limited, waited = 0, 0, 0.0
        while not wire.context.stopping:
            outcome = await wire.request(self.judge.body(conversation, self.formats))
            if outcome is None:
                return None  # the budget is reached, or the run is being stopped
            tally.tokens_in += outcome.tokens_in
            tally.tokens_out += outcome.tokens_out
            tally.usd += outcome.usd
            self.read_tokens += outcome.tokens_in
            self.cached_tokens += outcome.tokens_cached
            if outcome.kind == "rejected":
                self.held.reject(question, tally.answer(None, "rejected", outcome.text))
                return None
            if outcome.kind == "unauthorised":
                return None
            if outcome.kind in NOT_AGAIN:
                return tally.answer(None, outcome.kind, outcome.text)
            if outcome.kind in ("reply", "cut_off"):
                reply = self.read(outcome, question)
                if reply.score is not None:
                    reasons = self.kept(reply, outcome.thoughts)
                    return tally.answer(reply.score, "answered", reasons)
                problem = reply.problem
                if problem == "empty" and (outcome.thoughts or reply.reasons):
                    problem = "thoughts_only"
                wire.context.count_failure(problem)
                if corrected or not self.corrects:
                    return tally.answer(None, problem, outcome.text or outcome.thoughts)
                corrected = True
                if problem not in ("empty", "thoughts_only", "cut_off"):
                    said = {"role": "assistant", "content": outcome.text[:4000]}
                    ask = prompt.correction(problem.replace("_", " "), self.prompt_for(question))
                    conversation = [*asked, said, {"role": "user", "content": ask}]
                continue
            if outcome.kind == "rate_limited":
                # After a wait that did not help comes a longer one, whatever the provider says.
                first = SHORTEST_WAIT if outcome.wait else FIRST_WAIT
                pause = wait_before_retry(limited, outcome.wait, first)
                waited += pause
                wire.limiter.pause(pause)
                limited += 1
                failures += not outcome.wait
                if waited > self.judge.provider.patience:
                    return None
            else:
                failures += 1
            if failures >= self.judge.provider.attempts:
                return None
            if outcome.kind != "rate_limited":
                await wire.context.sleep(wait_before_retry(failures - 1, outcome.wait))
        return None


@dataclass
class OrderSession(ApiSession):
    """One that orders blocks."""

    asked_by: ClassVar[str] = "order"
    formats: ClassVar[Mapping[str, Any]] = list_form.ORDER

    def prompt_for(self, question: Question) -> str:
        """The prompt about a block."""
        return self.asked_by

    def messages(self, question: Question) -> prompt.Messages:
        """The conversation about a block."""
        limit = self.judge.max_document_tokens
        return list_form.messages_about(question, limit, self.asked_by)

    def read(self, outcome: RequestOutcome, question: Question) -> Reply:
        """The order in a reply."""
        return list_form.read_list(outcome, question, self.asked_by)

    def kept(self, reply: Reply, thoughts: str) -> str:
        """The order alone."""
        return reply.reasons


@dataclass
class BestSession(OrderSession):
    """One that names the best of a block."""

    asked_by: ClassVar[str] = "best"
    formats: ClassVar[Mapping[str, Any]] = list_form.BEST


@cache
def say_unpriced(model: str) -> None:
    """Say once that nothing is known of what a model costs."""
    print(f"  the price of {model} is not known: what it costs is not counted", file=sys.stderr)
