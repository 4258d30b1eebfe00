"""A language model behind an OpenAI-compatible endpoint, as a judge.

The `openai` SDK holds the account (key, organisation, project, endpoint, headers). Requests are
posted by aiohttp: the SDK's own way to send one costs ten times its CPU time
(`benchmarks/judging.py`). What may go wrong with a request has one of these names, each counted:

    again, later     rate_limited  server_error  timeout  connection  truncated  invalid_json
    asked once more  empty  thoughts_only  unparsable  not_a_number  out_of_range  cut_off
    not again        refused  too_long
    the judge        unauthorised  rejected
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, urlsplit, urlunsplit

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
VARIABLE = re.compile("[A-Z_][A-Z0-9_]*")
SECRET = re.compile("key|token|secret|password|^sig", re.IGNORECASE)  # of an address's parameters
IN_A_ROW = 5  # questions without any answer before a judge is given up
TRIAL = 20  # questions whose answers are all of no use before a judge is given up
ADVICE = {  # by the commonest problem
    "cut_off": "max_tokens={max_tokens} is too little for what it writes",
    "thoughts_only": (
        "the endpoint gave thoughts and no answer: raise max_tokens={max_tokens}, or switch "
        "thinking off (extra={{chat_template_kwargs: {{enable_thinking: false}}}} for vLLM)"
    ),
    "too_long": (
        "show less of each document than document_tokens={document_tokens}, or give the server a "
        "longer context"
    ),
    "refused": "it refuses to compare these texts: take another model",
}
KEEP_TO_THE_FORM = "provider.structured=json_schema has it keep to the form, where the endpoint can"
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
    key_header: str = option(
        "Authorization",
        "header that carries the key: Authorization (as Bearer KEY), or api-key (Azure)",
        pattern="^[A-Za-z0-9-]+$",
        exclude=True,
    )
    headers: dict[str, str] = option(
        {},
        "more headers: each one's name, and the environment variable that holds its value",
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
        if parts.fragment:
            raise ValueError("an address ends before /chat/completions, without #")
        if any(SECRET.search(name) for name, _ in parse_qsl(parts.query)):
            raise ValueError("a key has no place in an address: name a key_variable, a key_header")
        return urlunsplit(parts._replace(path=parts.path.rstrip("/")))

    @field_validator("key_variable")
    @classmethod
    def _variable(cls, name: str | None) -> str | None:
        if name is not None and not VARIABLE.fullmatch(name):
            raise ValueError("the NAME of an environment variable is needed, never the key itself")
        return name

    @field_validator("headers")
    @classmethod
    def _variables(cls, headers: dict[str, str]) -> dict[str, str]:
        if not all(VARIABLE.fullmatch(name) for name in headers.values()):
            raise ValueError("of each header the NAME of an environment variable is needed")
        return headers

    @property
    def chat_url(self) -> str:
        """Where requests go; what follows a ? in the address (api-version) stays there."""
        parts = urlsplit(self.base_url)
        return urlunsplit(parts._replace(path=f"{parts.path}/chat/completions"))

    def key(self) -> str:
        """The key; `UserError` where its variable is not set. Never kept in anything written."""
        if self.key_variable is None:
            return "none"
        return self._from_environment(self.key_variable, "the provider's key")

    def more_headers(self) -> dict[str, str]:
        """Values of `headers`; `UserError` where a variable is not set. Never kept either."""
        return {
            name: self._from_environment(variable, f"the value of the header {name}")
            for name, variable in self.headers.items()
        }

    def _from_environment(self, variable: str, what: str) -> str:
        value = os.environ.get(variable, "").strip()
        if not value:
            raise UserError(
                f"judge {self.name}: the environment variable {variable} is not set; put {what} "
                f"there, or choose another judge"
            )
        return value


class ApiJudge(Component):
    """One model of one provider, asked by the prompt in `prompts/compare.md`."""

    across: ClassVar[bool] = True
    provider: Provider = option(help="where it is asked")
    model: str = option(help="its name there")
    document_tokens: int = option(
        1000, "of each document at most about so many tokens are shown", ge=16
    )
    max_tokens: int = option(1024, "most tokens it may write", ge=16)
    temperature: float | None = option(None, "null: the endpoint's default", ge=0, le=2)
    system: bool = option(
        True,
        "false: the instructions begin the user's message, for models that know no system role",
    )
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
        how += [] if self.system else ["no system role"]
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
    _failed: list[tuple[Question, Answer]] = field(default_factory=list, init=False)
    _usable: bool = field(default=False, init=False)  # whether any answer was
    _proved: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def ready(self, spending: Spending) -> None:
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
            self._usable = asking.usable
            self._proved = asyncio.Event()  # set by an answer that is of use; more are asked then
            if self._usable:
                self._proved.set()
            async with asyncio.TaskGroup() as group:
                async with asyncio.TaskGroup() as first:
                    for number in range(workers):
                        late = number >= TRIAL
                        (group if late else first).create_task(
                            self._work(supply, wire, asking, late)
                        )
                self._proved.set()
        if not asking.down:  # too few to say that none is of use
            for question, answer in self._failed:
                asking.deliver(question, answer)
        self._failed.clear()
        if self._answered and not asking.down:  # it is these questions, not the configuration
            for question, answer in self._rejected:
                asking.deliver(question, answer)
        self._rejected.clear()

    async def _work(
        self, supply: Iterator[Question], wire: Wire, asking: Asking, late: bool
    ) -> None:
        if late:
            await self._proved.wait()
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
                self._take(question, answer, asking)
            elif not asking.stopping:
                self._in_a_row += 1
                if self._in_a_row >= IN_A_ROW:
                    asking.down = f"{IN_A_ROW} questions in a row without an answer: {wire.trouble}"

    def _take(self, question: Question, answer: Answer, asking: Asking) -> None:
        """Hand an answer on; failures only after one that is of use, and the judge is given up
        where none comes: they then stay missing, and are asked again when it is mended."""
        if answer.score is not None and not self._usable:
            self._usable = True
            self._proved.set()
            for failed in self._failed:
                asking.deliver(*failed)
            self._failed.clear()
        if self._usable:
            asking.deliver(question, answer)
            return
        self._failed.append((question, answer))
        if len(self._failed) >= TRIAL and not asking.down:
            asking.down = self._of_no_use()

    def _of_no_use(self) -> str:
        """What is wrong with all answers so far, by the commonest problem."""
        kinds = Counter(answer.status for _, answer in self._failed)
        problem, n = kinds.most_common(1)[0]
        said = next(answer.reasons for _, answer in self._failed if answer.status == problem)
        options = {
            "max_tokens": self.judge.max_tokens,
            "document_tokens": self.judge.document_tokens,
        }
        advice = ADVICE.get(problem, KEEP_TO_THE_FORM).format(**options)
        shown = f" ({' '.join(said.split())[:120]!r})" if said else ""
        return f"of {len(self._failed)} answers none is usable, {n} {problem}{shown}; {advice}"

    async def _ask(self, question: Question, wire: Wire) -> Answer | None:
        """The answer to one question, asked again as often as that may help; None: none now."""
        name = "compare" if question.query_b is None else "cross"
        asked = prompt.messages(question, self.judge.document_tokens, name=name)
        if not self.judge.system:
            asked = prompt.in_one(asked)
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
                    reasons = f"{outcome.thoughts}\n\n{reply.reasons}".strip()
                    return tally.answer(reply.score, "answered", reasons)
                problem = reply.problem if outcome.kind == "reply" else "cut_off"
                if problem == "empty" and (outcome.thoughts or reply.reasons):
                    problem = "thoughts_only"
                wire.asking.trouble(problem)
                if corrected:
                    return tally.answer(None, problem, outcome.text or outcome.thoughts)
                corrected = True
                if problem not in ("empty", "thoughts_only", "cut_off"):
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
