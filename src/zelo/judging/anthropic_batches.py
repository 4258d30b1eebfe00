"""Anthropic's message batches, spoken to as OpenAI's are: requests, states and results are put into
one another's words.

A batch carries no name of ours, but its requests do. Where it is not known what a batch is called
at the provider, it is the one of as many requests, and on nobody's record, that was created next to
it in time; whether that is ours its results say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from zelo.judging.batch_client import AnotherProgramError, BatchClient, Creating
from zelo.judging.batch_ledger import Batch
from zelo.judging.wire import Wire

VERSION = "2023-06-01"
CLOCKS = 120.0  # seconds that two machines' clocks may differ
# Fields of a chat request that the Messages API has too, under the same name
SHARED = ("model", "temperature", "top_p", "top_k", "thinking", "metadata", "service_tier")
FINISHED = {"max_tokens": "length", "refusal": "content_filter"}
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

    async def sent(self, batch: Batch, lines: Sequence[bytes]) -> Creating:
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

    async def _listed(self, batch: Batch) -> str | None:
        taken = self.remotes() | self.of_others
        found: list[tuple[float, str]] = []
        after = ""
        while True:
            page = await self.json("GET", f"/messages/batches?limit=100{after}")
            for one in page.get("data", []):
                made = datetime.fromisoformat(one["created_at"]).timestamp()
                size = sum((one.get("request_counts") or {}).values())
                fits = size == len(batch.keys) and made > batch.time - CLOCKS
                if fits and one["id"] not in taken:
                    found.append((abs(made - batch.time), str(one["id"])))
            if not page.get("has_more") or not page.get("data"):
                return min(found)[1] if found else None
            after = f"&after_id={page['last_id']}"

    async def results(
        self, batch: Batch, state: Mapping[str, Any]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Line and result of every request of a batch that is over."""
        raw = await self.call("GET", f"/messages/batches/{state['id']}/results")
        rows = [json.loads(line) for line in raw.splitlines() if line]
        ours = [row for row in rows if row["custom_id"].startswith(f"{batch.name}-")]
        if not ours:
            self.of_others.add(state["id"])
            raise AnotherProgramError(f"batch {state['id']} is another program's", gone=True)
        return (
            (int(row["custom_id"].rpartition("-")[2]), as_result(row["result"])) for row in ours
        )


def message_headers(key: str) -> dict[str, str]:
    """Headers of the Messages API."""
    return {"x-api-key": key, "anthropic-version": VERSION, "content-type": "application/json"}


def as_message(body: Mapping[str, Any]) -> dict[str, Any]:
    """A chat request as a request of the Messages API; what that has not is left out."""
    messages = body["messages"]
    system = "\n\n".join(one["content"] for one in messages if one["role"] == "system")
    limit = body.get("max_tokens") or body["max_completion_tokens"]
    return {
        **{name: body[name] for name in SHARED if name in body},
        "max_tokens": limit,
        **({"system": system} if system else {}),
        "messages": [one for one in messages if one["role"] != "system"],
    }


def as_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a message as that of a chat request in a batch."""
    if result["type"] in NOT_THERE:
        return {"response": None}
    if result["type"] == "errored":
        error = result["error"].get("error") or result["error"]
        status = STATUS_OF.get(str(error.get("type")), 500)
        return {"response": {"status_code": status, "body": {"error": error}}}
    message = result["message"]
    blocks = message.get("content") or []
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    thoughts = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    usage = message.get("usage") or {}
    cached = usage.get("cache_read_input_tokens") or 0
    made = usage.get("cache_creation_input_tokens") or 0
    said = {"content": text, "reasoning_content": thoughts}
    finish = FINISHED.get(str(message.get("stop_reason")), "stop")
    body = {
        "choices": [{"message": said, "finish_reason": finish}],
        "usage": {
            "prompt_tokens": usage.get("input_tokens", 0) + cached + made,
            "completion_tokens": usage.get("output_tokens", 0),
            "prompt_tokens_details": {"cached_tokens": cached},
        },
    }
    return {"response": {"status_code": 200, "body": body}}
