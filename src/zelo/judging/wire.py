"""The connection of an API judge: a request sent within limits and budget, and what it came to."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zelo.data.token_estimate import estimated_tokens
from zelo.judging.base import RequestContext
from zelo.judging.endpoint import redact, retry_after
from zelo.judging.limits import Limiter
from zelo.judging.provider import Provider
from zelo.judging.spending import Price
from zelo.progress import say

if TYPE_CHECKING:
    import aiohttp

MOST_TOKENS = 2**31  # a count beyond is none
TRUNCATED = 0.5  # share of the tokens sent: an endpoint that read less has truncated the prompt
TOO_LONG = re.compile(
    r"context (?:length|window|size)|too (?:long|large|many tokens)|maximum (?:number of |input )?"
    r"tokens|input length|prompt length",
    re.IGNORECASE,
)

# What chat templates without a system role say of one (Gemma's, and Mistral's first).
ROLES = re.compile(r"system role|roles must alternate", re.IGNORECASE)


@dataclass(frozen=True)
class RequestOutcome:
    """What one request came to: the text of a reply, or the kind of trouble."""

    kind: str  # "reply", or a kind of trouble (see api.py)
    text: str = ""
    thoughts: str = ""  # what the endpoint keeps apart from the text of a reply
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0  # of those in, that the provider had kept
    usd: float = 0.0
    wait: float | None = None  # seconds the endpoint asks to wait
    # Log-probabilities of the likeliest tokens where the text begins, if that was asked for
    first_tokens: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Wire:
    """The connection to one endpoint: sends a request and says what became of it."""

    provider: Provider
    price: Price | None  # None: it is not known, and counted as nothing
    max_tokens: int  # that a reply may have
    max_document_tokens: int  # of each document that are shown, at most
    http: aiohttp.ClientSession
    limiter: Limiter
    context: RequestContext
    key: str = field(repr=False)
    last_trouble: str = ""  # in the endpoint's own words
    truncation_said: bool = False  # whether it was said that the endpoint truncates prompts

    def __post_init__(self) -> None:
        self.url = self.provider.chat_url

    async def request(self, body: Mapping[str, Any]) -> RequestOutcome | None:
        """Send one request within limits and budget; None where it may not be sent any more."""
        likely = sum(estimated_tokens(message["content"]) for message in body["messages"])
        raw = json.dumps(body).encode()
        most = self.usd(len(raw), self.max_tokens)  # no token is less than a byte
        async with self.limiter.slots:
            await self.limiter.admit(likely, self.context.sleep)
            while not self.context.stopping and not self.context.spending.reserve(most):
                await self.context.sleep(0.05)  # what is in flight may cost less than was reserved
            if self.context.stopping:
                return None
            paid = most
            try:
                await self.context.spending_recorded()
                outcome, billed = await self._post(raw)
                paid = outcome.usd if billed is not None else most
                if billed:
                    self.limiter.correct(outcome.tokens_in + outcome.tokens_out - likely)
                    self._look_for_truncation(outcome.tokens_in, likely)
            finally:
                self.context.spending.settle(most, paid)
        if outcome.kind not in ("reply", "cut_off"):
            self.context.count_failure(outcome.kind)
            self.last_trouble = f"{outcome.kind} ({outcome.text})" if outcome.text else outcome.kind
            if outcome.kind == "unauthorised":
                self.context.given_up = self.context.given_up or self.last_trouble
        return outcome

    def usd(self, tokens_in: int, tokens_out: int, tokens_cached: int = 0) -> float:
        """What so many tokens cost, as far as that is known."""
        return 0.0 if self.price is None else self.price.of(tokens_in, tokens_out, tokens_cached)

    async def _post(self, body: bytes) -> tuple[RequestOutcome, bool | None]:
        """What a request came to, and whether it was billed; None: that is not known."""
        import aiohttp

        try:
            async with self.http.post(
                self.url,
                data=body,
                allow_redirects=False,  # documents go where they were sent
            ) as response:
                raw = await response.read()
                status, headers = response.status, response.headers
        except TimeoutError:
            return RequestOutcome("timeout", f"nothing within {self.provider.timeout:g} s"), None
        except aiohttp.ClientPayloadError:
            return RequestOutcome("truncated"), None
        except aiohttp.ClientConnectorError as error:
            return RequestOutcome("connection", redact(str(error), self.key)), False
        except (aiohttp.ClientError, OSError) as error:
            return RequestOutcome("connection", redact(str(error), self.key)), None
        return self.read(status, headers, raw)

    def outcome(self, status: int, body: Any) -> tuple[RequestOutcome, bool | None]:
        """What a request of a batch came to, of which status and body are known, and whether it was
        billed."""
        return self.read(status, {}, json.dumps(body).encode())

    def read(self, status: int, headers: Any, raw: bytes) -> tuple[RequestOutcome, bool | None]:
        """What a response says, and whether the request was billed."""
        try:
            content = json.loads(raw)
        except (ValueError, RecursionError):
            content = None
        if status != 200 or (isinstance(content, dict) and is_error(content)):
            # A gateway that gave up waiting does not know what the model did.
            refusal = self._refusal(status, headers, content, raw)
            return refusal, None if status in (504, 524) else False
        if not isinstance(content, dict):
            return RequestOutcome("invalid_json", redact(repr(raw), self.key)[:80]), None
        return self._reply(content)

    def _reply(self, content: dict[str, Any]) -> tuple[RequestOutcome, bool | None]:
        """The reply in a response that looks well."""
        try:
            choice = content["choices"][0]
            message = choice["message"]
            text, refusal = message.get("content"), message.get("refusal")
            if isinstance(text, list):  # parts
                text = "".join(part.get("text", "") for part in text)
        except (KeyError, IndexError, TypeError, AttributeError):
            return RequestOutcome("invalid_json", "no choices[0].message"), None
        finish = choice.get("finish_reason")
        if isinstance(choice.get("error"), dict):  # OpenRouter's, of the provider behind it
            what = redact(account_of(choice)[1], self.key)
            return RequestOutcome("server_error", what), None
        text, thoughts = apart(message, text if isinstance(text, str) else "", finish)
        usage = content.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        n_in, n_out, total = (
            as_count(usage.get(f"{what}_tokens")) for what in ("prompt", "completion", "total")
        )
        known = n_in is not None and n_out is not None
        n_in, n_out = n_in or 0, n_out or 0
        n_out = max(n_out, (total or 0) - n_in)  # some leave out what a model thought, and bill it
        cached = min(cached_tokens(usage), n_in)
        usd = self.usd(n_in, n_out, cached)
        kind = "reply"
        if refusal or finish == "content_filter":
            kind, text = "refused", refusal or text or "content filter"
        elif finish == "length":
            kind = "cut_off"
        said, thoughts = (redact(str(part or ""), self.key) for part in (text, thoughts))
        outcome = RequestOutcome(
            kind,
            said,
            thoughts,
            tokens_in=n_in,
            tokens_out=n_out,
            tokens_cached=cached,
            usd=usd,
            first_tokens=first_tokens(choice),
        )
        return outcome, True if known else None

    def _look_for_truncation(self, read: int, likely: int) -> None:
        """Say once that the endpoint reads far less than it is sent."""
        if self.truncation_said or not 0 < read < TRUNCATED * likely:
            return
        self.truncation_said = True
        name, tokens = self.provider.name, self.max_document_tokens
        say(
            f"  ! {name}: it read {read:,} tokens of a prompt of about {likely:,}: it seems to "
            f"cut prompts, so that documents are judged unseen; give the server a longer context "
            f"(Ollama: num_ctx, vLLM: --max-model-len), or show less of each document than "
            f"max_document_tokens={tokens}"
        )

    def _refusal(self, status: int, headers: Any, content: Any, raw: bytes) -> RequestOutcome:
        """The kind of a response that is an error."""
        code, message = account_of(content)
        message = message or raw.decode("utf-8", "replace")[:300].strip()
        text = redact(f"{status} {message}".strip(), self.key)[:300]
        if status == 200 and re.fullmatch("[0-9]{3}", code):
            status = int(code)
        if status == 404:
            text += "; is the model's name right, and does provider.base_url end in /v1 or as the "
            text += "server has it?"
        if status == 400 and ROLES.search(str(content)):
            text += "; judge.judges.NAME.system_role=false puts the instructions into the user's "
            text += "message"
        if code == "insufficient_quota" or status in (401, 402, 403, 404):
            return RequestOutcome("unauthorised", text)
        if status == 429:
            return RequestOutcome("rate_limited", text, wait=retry_after(headers))
        known = code in ("context_length_exceeded", "string_above_max_length") or status == 413
        if known or (status in (400, 422) and TOO_LONG.search(message)):
            return RequestOutcome("too_long", text)
        if code == "content_filter":
            return RequestOutcome("refused", text)
        if status in (408, 409, 425) or status >= 500 or status == 200:
            return RequestOutcome("server_error", text, wait=retry_after(headers))
        return RequestOutcome("rejected", text)


def first_tokens(choice: Mapping[str, Any]) -> dict[str, float]:
    """Log-probabilities of the likeliest tokens at the first place where a reply has more than
    space; none where the endpoint does not give them."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        for place in choice["logprobs"]["content"]:
            if place["token"].strip():
                likeliest = [*place["top_logprobs"], place]
                return {str(one["token"]): float(one["logprob"]) for one in likeliest}
    return {}


# Where endpoints put what a model thought, or all that it wrote.
BESIDE = ("reasoning_content", "reasoning", "thinking")


def apart(message: dict[str, Any], text: str, finish: object) -> tuple[str, str]:
    """The text of a reply, and what the endpoint keeps apart from it.

    Some put the answer itself beside an empty text: into the field for thoughts, or into the
    arguments of a tool. It is the text where the model came to its end and it is an object with an
    answer from the first character to the last.
    """
    thoughts = next((v for name in BESIDE if isinstance(v := message.get(name), str) and v), "")
    if text.strip() or finish not in ("stop", "tool_calls", None):
        return text, thoughts
    arguments = ""
    with suppress(KeyError, IndexError, TypeError):
        arguments = message["tool_calls"][0]["function"]["arguments"]
    for beside in (arguments, thoughts):
        if isinstance(beside, str) and is_answer(beside):
            return beside, "" if beside is thoughts else thoughts
    return text, thoughts


def is_answer(text: str) -> bool:
    """Whether a text is one JSON object with a score and nothing else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and "score" in found


def is_error(content: dict[str, Any]) -> bool:
    """Whether a response of status 200 says that it is an error."""
    return bool(content.get("error")) or content.get("object") == "error"


def account_of(content: Any) -> tuple[str, str]:
    """Code and message of an error's body: OpenAI's form, a list of it (Gemini), a flat one (vLLM,
    LiteLLM), a text (Ollama), or `detail` (FastAPI)."""
    if isinstance(content, list) and content:
        content = content[0]
    if not isinstance(content, dict):
        return "", ""
    error = content.get("error")
    if isinstance(error, str) and error:
        return "", error
    error = error if isinstance(error, dict) else content
    code = str(error.get("code") or error.get("type") or "")
    message = error.get("message") or error.get("detail") or error.get("msg")
    if isinstance(message, list):  # one entry per field of the request
        parts = [part.get("msg", part) if isinstance(part, dict) else part for part in message]
        message = "; ".join(map(str, parts))
    if isinstance(message, dict):
        message = message.get("message") or json.dumps(message)
    return code, str(message or code)


def cached_tokens(usage: Mapping[str, Any]) -> int:
    """Tokens of a prompt that the provider had kept: in OpenAI's place for them (vLLM's and
    Gemini's too) or DeepSeek's; 0 where nothing is said."""
    details = usage.get("prompt_tokens_details")
    said = details.get("cached_tokens") if isinstance(details, dict) else None
    return as_count(said) or as_count(usage.get("prompt_cache_hit_tokens")) or 0


def as_count(value: Any) -> int | None:
    """A number of tokens; None for anything else."""
    return value if type(value) is int and 0 <= value < MOST_TOKENS else None
