"""A language model behind an OpenAI-compatible endpoint, as a judge.

The `openai` SDK holds the account (key, organisation, project, endpoint, headers). Requests are
posted by aiohttp: the SDK's own way to send one costs ten times its CPU time
(`benchmarks/judging.py`). What may go wrong with a request has one of these names, each counted:

    again, later     rate_limited  server_error  timeout  connection  truncated  invalid_json
    asked once more  empty  unparsable  not_a_number  out_of_range  cut_off
    not again        refused  too_long
    the judge        unauthorised  rejected
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import field_validator

from zelo.config import Component, option
from zelo.errors import UserError, in_words
from zelo.judging import prompt
from zelo.judging.limits import NO_WAIT, Limiter, backoff
from zelo.judging.prices import price_of
from zelo.judging.protocol import Answer, Asking, Question
from zelo.judging.reply import read_reply
from zelo.judging.spending import Price, Spending
from zelo.judging.wire import Wire, account_headers, proxy_for
from zelo.store import digest

if TYPE_CHECKING:
    pass

SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "comparison",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {
                "reasons": {"type": "string"},
                "score": {"type": "number", "description": "between -1 (A) and 1 (B)"},
            },
            "required": ["reasons", "score"],
            "additionalProperties": False,
        },
    },
}
FORMATS: dict[str, Any] = {"json_schema": SCHEMA, "json_object": {"type": "json_object"}}
NOT_AGAIN = {"refused", "too_long"}
IN_A_ROW = 5  # questions without any answer before a judge is given up
OURS = {
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "response_format",
    "n",
    "stream",
}


class Provider(Component):
    """An endpoint, its account and its limits. Nothing but its name changes an answer's key."""

    name: str = option(help="who answers; part of the key of an answer")
    base_url: str = option(
        help="endpoint, up to and without /chat/completions", exclude=True, repr=False
    )
    key_variable: str | None = option(
        None,
        "environment variable that holds the key; null: none is needed",
        exclude=True,
        repr=False,
    )
    structured: str = option(
        "none",
        "how the endpoint is told to answer in JSON, if it can be",
        pattern="^(json_schema|json_object|none)$",
    )
    token_limit_field: str = option(
        "max_tokens",
        "what the endpoint calls the limit of tokens written",
        pattern="^(max_tokens|max_completion_tokens)$",
        exclude=True,
    )
    in_flight: int = option(16, "requests at once", ge=1, le=4096, exclude=True)
    requests_per_minute: float | None = option(None, "null: no limit", gt=0, exclude=True)
    tokens_per_minute: float | None = option(
        None, "read and written together; null: no limit", gt=0, exclude=True
    )
    timeout: float = option(120.0, "seconds for one request", gt=0, exclude=True)
    attempts: int = option(
        8, "requests for one question before it is left for the next run", ge=1, exclude=True
    )
    patience: float = option(
        900.0, "seconds a question may wait on rate limits in all", ge=0, exclude=True
    )

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an http(s) address is needed")
        if parts.username or parts.password:
            raise ValueError("a password has no place in an address: name a key_variable")
        if parts.query or parts.fragment:
            raise ValueError("an address ends before /chat/completions, without ? and #")
        return url.rstrip("/")

    @field_validator("key_variable")
    @classmethod
    def _variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch("[A-Z_][A-Z0-9_]*", name):
            raise ValueError("the NAME of an environment variable is needed, never the key itself")
        return name

    def key(self) -> str:
        """The key; `UserError` where its variable is not set. Never kept in anything written."""
        if self.key_variable is None:
            return "none"
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise UserError(
                f"judge {self.name}: the environment variable {self.key_variable} is not set; "
                f"put the provider's key there, or choose another judge"
            )
        return key


class ApiJudge(Component):
    """One model of one provider, asked by the prompt in `prompts/compare.md`."""

    provider: Provider = option(help="where it is asked")
    model: str = option(help="its name there")
    document_tokens: int = option(
        1000, "of each document at most about so many tokens are shown", ge=16
    )
    max_tokens: int = option(1024, "most tokens it may write", ge=16)
    temperature: float | None = option(None, "null: the endpoint's default", ge=0, le=2)
    extra: dict[str, Any] = option({}, "more fields of the request (reasoning_effort, top_p, ...)")
    expected_output_tokens: int = option(
        150, "written for one answer, for `zelo plan` until the ledger knows", ge=1, exclude=True
    )
    price: Price | None = option(None, "null: as in conf/prices.yaml", exclude=True)

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, Any]) -> dict[str, Any]:
        if taken := OURS & extra.keys():
            raise ValueError(
                f"{', '.join(sorted(taken))}: set by the judge's own options, which the budget "
                f"is reckoned with"
            )
        return extra

    def fingerprint(self) -> str:
        """Digest of the prompt."""
        return prompt.prompt_hash()

    def prepare(self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int) -> PreparedApi:
        """Nothing is loaded and no key is read before there is something to ask."""
        asked = [self.provider.name, self.model, prompt.prompt_hash(), self.document_tokens]
        how = [self.max_tokens, self.temperature, self.extra, self.provider.structured]
        return PreparedApi(digest(["api", *asked, *how]), self)

    def price_or_none(self) -> Price | None:
        """What it costs, as configured or listed."""
        return self.price or price_of(f"{self.provider.name}/{self.model}")

    def body(self, messages: prompt.Messages) -> dict[str, Any]:
        """The request."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            self.provider.token_limit_field: self.max_tokens,
        }
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.provider.structured in FORMATS:
            body["response_format"] = FORMATS[self.provider.structured]
        return body | self.extra


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
class PreparedApi:
    """A judge ready to be asked."""

    fingerprint: str
    judge: ApiJudge
    _in_a_row: int = field(default=0, init=False)
    _answered: int = field(default=0, init=False)
    _rejected: list[tuple[Question, Answer]] = field(default_factory=list, init=False)

    def ready(self, spending: Spending) -> None:
        """`UserError` where key, packages or, under a budget in USD, the price are missing."""
        self.judge.provider.key()
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
                say_unpriced(f"{self.judge.provider.name}/{self.judge.model}")
                return
            raise UserError(
                f"budget.usd: the price of {self.judge.provider.name}/{self.judge.model} is not in "
                f"conf/prices.yaml; set it with judge.judges.NAME.price="
                f"'{{_target_: zelo.judging.spending.Price, input: USD, output: USD}}' per million "
                f"tokens"
            )

    def documents_cut(self, texts: Sequence[str]) -> int:
        """How many of `texts` are longer than what is shown of a document."""
        limit = self.judge.document_tokens
        return sum(bool(prompt.shown(text, limit)[1]) for text in texts)

    async def answer_each(self, questions: Sequence[Question], asking: Asking) -> None:
        """Ask all of `questions`, as many at once as the provider allows."""
        import aiohttp

        provider = self.judge.provider
        limiter = asking.limiters.get(provider.name)
        if limiter is None:
            limiter = asking.limiters[provider.name] = Limiter(
                provider.in_flight, provider.requests_per_minute, provider.tokens_per_minute
            )
        key = provider.key()
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=provider.timeout),
            headers=account_headers(provider, key),
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=proxy_for(provider.base_url),
        ) as session:
            wire = Wire(self.judge, session, limiter, asking, key)
            supply = iter(questions)
            workers = min(provider.in_flight, len(questions))
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work(supply, wire, asking))
        if self._answered and not asking.down:  # it is these questions, not the configuration
            for question, answer in self._rejected:
                asking.deliver(question, answer)
        self._rejected.clear()

    async def _work(self, supply: Iterator[Question], wire: Wire, asking: Asking) -> None:
        for question in supply:
            if asking.stopping:
                return
            try:
                answer = await self._ask(question, wire)
            except Exception as error:  # the other requests come home all the same
                asking.down = in_words(error)
                return
            if answer is not None:
                self._in_a_row, self._answered = 0, self._answered + 1
                asking.deliver(question, answer)
            elif not asking.stopping:
                self._in_a_row += 1
                if self._in_a_row >= IN_A_ROW:
                    asking.down = f"{IN_A_ROW} questions in a row without an answer: {wire.trouble}"

    async def _ask(self, question: Question, wire: Wire) -> Answer | None:
        """The answer to one question, asked again as often as that may help; None: none now."""
        name = "compare" if question.query_b is None else "cross"
        asked = prompt.messages(question, self.judge.document_tokens, name=name)
        conversation = asked
        tally = Tally()
        corrected = False
        failures, limited, waited = 0, 0, 0.0
        while not wire.asking.stopping:
            outcome = await wire.request(conversation)
            if outcome is None:
                return None  # the budget is reached, or the run is being stopped
            tally.tokens_in += outcome.tokens_in
            tally.tokens_out += outcome.tokens_out
            tally.usd += outcome.usd
            if outcome.kind == "rejected":
                self._rejected.append((question, tally.answer(None, "rejected", outcome.text)))
                return None
            if outcome.kind == "unauthorised":
                return None
            if outcome.kind in NOT_AGAIN:
                return tally.answer(None, outcome.kind, outcome.text)
            if outcome.kind in ("reply", "cut_off"):
                reply = read_reply(outcome.text, whole=outcome.kind == "reply")
                if reply.score is not None:
                    return tally.answer(reply.score, "answered", reply.reasons)
                problem = reply.problem if outcome.kind == "reply" else "cut_off"
                wire.asking.trouble(problem)
                if corrected:
                    return tally.answer(None, problem, outcome.text)
                corrected = True
                if problem not in ("empty", "cut_off"):
                    said = {"role": "assistant", "content": outcome.text[:4000]}
                    ask = prompt.correction(problem.replace("_", " "))
                    conversation = [*asked, said, {"role": "user", "content": ask}]
                continue
            if outcome.kind == "rate_limited":
                # After a wait that did not help comes a longer one, whatever the provider says.
                pause = max(
                    outcome.wait or 0.0, backoff(limited, NO_WAIT if outcome.wait else None)
                )
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
                await wire.asking.rest(max(backoff(failures - 1), outcome.wait or 0.0))
        return None


@cache
def say_unpriced(model: str) -> None:
    """Say once that nothing is known of what a model costs."""
    print(f"  the price of {model} is not known: what it costs is not counted", file=sys.stderr)
