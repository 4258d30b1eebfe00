"""Anthropic's message batches, spoken to as OpenAI's are: requests, states and results are put into
one another's words.

A batch carries no name of ours, but its requests do. Where it is not known what a batch is called
at the provider, it is taken to be the one of as many requests, surely nobody else's, that was
created next to it in time; whether it is ours its results say, and only then is it recorded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar

from zelo.judging.batch_client import (
    AnotherProgramError,
    BatchClient,
    BatchTroubleError,
    Creating,
)
from zelo.judging.batch_ledger import Batch
from zelo.judging.wire import Wire

VERSION = "2023-06-01"
CLOCKS = 120.0  # seconds that two machines' clocks may differ
UPLOAD = 3600.0  # seconds from when a batch is recorded to when it is created, at most
# Fields of a chat request that the Messages API has too, under the same name
SHARED = ("model", "top_p", "top_k", "thinking")
FINISHED = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
STATUS_OF = {  # of an error's type; else 500
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
}
NOT_THERE = {"expired", "canceled"}  # results of requests that were not made


@dataclass
class AnthropicBatchClient(BatchClient):
    """The provider's endpoint for message batches; `remotes` are the batches that are on record."""

    looks: ClassVar[int] = 8  # a minute: the whole batch is in the request that creates it
    guesses: ClassVar[bool] = True

    remotes: Callable[[], Set[str]]
    of_others: set[str] = field(default_factory=set)  # batches that are not ours

    @classmethod
    def of(cls, wire: Wire, http: Any, remotes: Callable[[], Set[str]]) -> AnthropicBatchClient:
        """With a connection `http` that has `message_headers`."""
        return cls(replace(wire, http=http), remotes)

    def line(self, batch: Batch, number: int, body: Mapping[str, Any]) -> bytes:
        """One request of a batch."""
        request = {"custom_id": f"{batch.name}-{number}", "params": as_message(body)}
        return json.dumps(request).encode()

    async def creating(self, batch: Batch, lines: Sequence[bytes]) -> Creating:
        """What creates a batch of such lines."""
        whole = b'{"requests": [%s]}' % b", ".join(lines)

        async def create() -> dict[str, Any]:
            return await self.json("POST", "/messages/batches", attempts=1, data=whole)

        return create

    async def state(self, remote: str) -> dict[str, Any]:
        """A batch, with a `status` as OpenAI has them."""
        state = await self.json("GET", f"/messages/batches/{remote}", attempts=1)
        status = str(state.get("processing_status"))
        if status == "ended":
            counts = state.get("request_counts") or {}
            ends = (("canceled", "cancelled"), ("expired", "expired"))
            status = next((ours for theirs, ours in ends if counts.get(theirs)), "completed")
        return {**state, "status": status}

    async def cancel(self, remote: str) -> None:
        """Have the provider answer no more of a batch than it has."""
        await self.call("POST", f"/messages/batches/{remote}/cancel", attempts=1)

    async def _listed(self, batch: Batch) -> str | None:
        taken = self.remotes() | self.of_others
        found: list[tuple[float, str]] = []
        try:
            async for one in self.listed("/messages/batches", "after_id"):
                late = datetime.fromisoformat(one["created_at"]).timestamp() - batch.time
                if late < -CLOCKS:  # and so are all that follow
                    break
                size = sum((one.get("request_counts") or {}).values())
                if size == len(batch.keys) and late < UPLOAD and one["id"] not in taken:
                    found.append((abs(late), str(one["id"])))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise BatchTroubleError("the list of message batches cannot be read") from None
        return min(found)[1] if found else None

    async def results(self, batch: Batch, state: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
        """Line and result of every request of a batch that is over."""
        raw = await self.call("GET", f"/messages/batches/{batch.remote}/results")
        ours: dict[int, dict[str, Any]] = {}
        for line in filter(None, raw.splitlines()):
            # What has no id of ours is not ours; a question without a result is asked again
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                row = json.loads(line)
                name, _, number = row["custom_id"].rpartition("-")
                if name == batch.name:
                    ours[int(number)] = as_result(row.get("result"))
        if not ours:
            self.of_others.add(str(batch.remote))
            raise AnotherProgramError(f"batch {batch.remote} is another program's")
        return ours


def message_headers(key: str) -> dict[str, str]:
    """Headers of the Messages API."""
    return {"x-api-key": key, "anthropic-version": VERSION, "content-type": "application/json"}


def as_message(body: Mapping[str, Any]) -> dict[str, Any]:
    """A chat request as a request of the Messages API; what that has not is left out."""
    messages = body["messages"]
    system = "\n\n".join(one["content"] for one in messages if one["role"] == "system")
    limit = body.get("max_tokens") or body["max_completion_tokens"]
    more: dict[str, Any] = {name: body[name] for name in SHARED if name in body}
    if (temperature := body.get("temperature")) is not None:
        more["temperature"] = min(temperature, 1.0)  # as their chat endpoint does
    if stop := body.get("stop"):
        more["stop_sequences"] = [stop] if isinstance(stop, str) else stop
    return {
        **more,
        "max_tokens": limit,
        **({"system": system} if system else {}),
        "messages": [one for one in messages if one["role"] != "system"],
    }


def as_result(result: Any) -> dict[str, Any]:
    """The result of a message as that of a chat request in a batch; where it cannot be read, as one
    without an answer, of which nobody knows what it cost."""
    try:
        return {"response": as_response(result)}
    except (KeyError, TypeError, AttributeError):
        return {"response": {"status_code": 200, "body": {}}}


def as_response(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Status and body of the chat completion that a result is; None where no request was made."""
    if result["type"] in NOT_THERE:
        return None
    if result["type"] == "errored":
        error = result["error"].get("error") or result["error"]
        return {"status_code": STATUS_OF.get(str(error.get("type")), 500), "body": {"error": error}}
    message = result["message"]
    blocks = message["content"] or []
    said = {
        "content": "".join(block["text"] for block in blocks if block["type"] == "text"),
        "reasoning_content": "".join(
            block["thinking"] for block in blocks if block["type"] == "thinking"
        ),
    }
    finish = FINISHED.get(str(message.get("stop_reason")), "stop")
    body: dict[str, Any] = {"choices": [{"message": said, "finish_reason": finish}]}
    if usage := message.get("usage"):
        cached = usage.get("cache_read_input_tokens") or 0
        made = usage.get("cache_creation_input_tokens") or 0
        body["usage"] = {
            "prompt_tokens": usage["input_tokens"] + cached + made,
            "completion_tokens": usage["output_tokens"],
            "prompt_tokens_details": {"cached_tokens": cached},
        }
    return {"status_code": 200, "body": body}
