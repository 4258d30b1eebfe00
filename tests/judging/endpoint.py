"""An OpenAI-compatible chat endpoint on loopback that goes wrong at set rates.

`python -m tests.judging.endpoint OPTIONS` serves until it is killed and prints its address first.
It reads `worth=NUMBER` out of both documents of a question (or takes a hash of each, or with
`--words` counts the query's words in them) and answers with half their difference, or with its
opposite where the instruction asks for the least.
Shown a block, it orders the documents by their worth, or names the best.
Asked to write queries, it takes them from the document; asked whether a person would ask one, it
says yes to about half of them.
GET /counts gives how often each fault happened and how often each question was answered in full.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import random
import re
import subprocess
import sys
import time
import urllib.request
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

LEAST = "the least worth is what is wanted"  # where the instruction says so, it reverses
INSTRUCTION = re.compile(
    r"\[\[instruction (?:\w+)\]\]\n(.*)\n\[\[end of instruction \w+\]\]", re.DOTALL
)
GRADING = "Answer 0, 1, 2 or 3."
REALISTIC = "Would a person ask this?"
WRITING = re.compile(r"Write one query of each of these kinds: ([\w, ]+)\.")
BLOCK_ASKED = re.compile(r"(?:(Order) these|Which of these) \d+ documents")
WORTH = re.compile(r"worth=(-?[\d.]+)")
WIRE = ("rate_limited", "server_error", "connection", "truncated", "invalid_json", "timeout")
CONTENT = ("empty", "unparsable", "out_of_range", "not_a_number", "cut_off")
KINDS = (*WIRE, *CONTENT, "refused", "too_long", "unauthorised", "rejected")


class Endpoint:
    """What it does to requests, and what it did."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.random = random.Random(options.seed)
        self.delays = random.Random(options.seed)
        self.faults: Counter[str] = Counter()
        self.answered: dict[str, list[float]] = {}  # question → when it was answered
        self.corrected = 0  # requests that say what was wrong with the answer before
        self.body: dict[str, Any] = {}  # the latest, without its messages
        self.spoiled: set[str] = set()
        self.requests = self.early = self.flying = self.most_flying = 0
        self.times: list[float] = []
        self.kept: set[int] = set()  # beginnings of prompts, by their hashes
        self.read = self.found = 0  # blocks of prompts, and of those that were kept
        self.closed_until = 0.0
        self.batches = Batches(self)
        self.message_batches = MessageBatches(self)
        self.template = json.dumps(completion("@", 900, 60))

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request: a question, or how it went so far."""
        if request.path == "/counts":
            return await self.counts()
        if request.path == "/release":  # batches that are under way
            self.options.batch_delay = 0.0
            return web.Response()
        if request.path.startswith(("/v1/files", "/v1/batches")):
            return await self.batches.handle(request)
        if request.path.startswith("/v1/messages/batches"):
            return await self.message_batches.handle(request)
        if request.path != "/v1/chat/completions":
            return error(404, "not_found", f"no such path {request.path}")
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            return await self._chat(request)
        finally:
            self.flying -= 1

    async def _chat(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.json()
        self.requests += 1
        if self.options.rpm:
            self.times.append(time.monotonic())
        self.early += time.monotonic() < self.closed_until
        key = request.headers.get("Authorization", "")
        if self.options.azure:  # a version in the address, a key in a header of its own
            wanted = {"api-version": "2024-10-21"}
            given = request.headers.get("api-key"), request.headers.get("X-Team"), key
            if dict(request.query) != wanted or given != (self.options.azure, "search", ""):
                return error(404, "not_found", "Resource not found")
        if self.options.key and key != f"Bearer {self.options.key}":
            return error(401, "invalid_api_key", f"Incorrect API key provided: {key}")
        messages = body.pop("messages")
        self.body = body
        roles = [message["role"] for message in messages]
        if roles == ["system", "user", "assistant", "user"]:
            self.corrected += "could not be read" in messages[3]["content"]
        if self.options.no_system and "system" in roles:
            return error(400, "BadRequestError", "System role not supported")
        question, said = self.said_to(messages)
        fault = self.fault(question)
        if fault:
            self.faults[fault] += 1
            return await self.go_wrong(fault, request, question)
        spread = self.options.spread
        await asyncio.sleep(self.options.latency * self.delays.uniform(1 - spread, 1 + spread))
        self.answered.setdefault(question, []).append(time.time())
        if self.options.cache:
            sizes = (BLOCK * len(prefixes(messages)), 60)
            content = completion(said, *sizes)
            cached = {"cached_tokens": BLOCK * self.kept_of(messages)}
            content["usage"]["prompt_tokens_details"] = cached
            return web.json_response(content)
        if body.get("logprobs") and self.options.logprobs and GRADING in question_of(messages):
            grade = grade_of(question_of(messages), self.options.words)
            return web.json_response(one_digit(grade, self.options.logprobs))
        if body.get("logprobs") and self.options.logprobs:
            return web.json_response(one_letter(json.loads(said)["score"], self.options.logprobs))
        if self.options.words:  # with the tokens that it would have counted
            sizes = (sum(len(m["content"]) for m in messages) // 4, len(said) // 4)
            return web.json_response(completion(said, *sizes))
        return self.answer(said, "length" if self.options.spoil == "begun" else "stop")

    def said_to(self, messages: list[dict[str, str]]) -> tuple[str, str]:
        """What a conversation asks, in short, and the reply to it."""
        shown = next(said["content"] for said in messages if said["role"] == "user")
        if writing := WRITING.search(shown):
            question = said = queries_of(shown, writing[1].split(", "))
        elif block := BLOCK_ASKED.search(shown):
            documents, worth = documents_shown(shown, self.options.words)
            question = " ".join(f"{worth[label]}" for label in documents)
            said = ordered(worth, self.options.spoil) if block[1] else best_of(worth)
        elif GRADING in shown:
            question = re.split(r"\]\]\n|\n\[\[end", shown)[3]
            said = str(round(grade_of(shown, self.options.words)))
        elif REALISTIC in shown:
            question = re.split(r"\]\]\n|\n\[\[end", shown)[1]
            said = f'{{"reasons": "so it is", "score": {realism_of(question)}}}'
        else:
            read = shared_words if self.options.words else worths
            a, b = read(shown)
            if LEAST in messages[0]["content"]:
                (told,) = INSTRUCTION.findall(messages[0]["content"])
                a, b = (b, a) if LEAST in told else (a, b)
            question = f"{a} {b}"
            said = f'{{"reasons": "worth {a} and {b}", "score": {score(a, b)}}}'
        return question, said

    def kept_of(self, messages: list[dict[str, str]]) -> int:
        """How many blocks at the beginning of a prompt were kept; then all of it is, as by a server
        that keeps prefixes."""
        found = prefixes(messages)
        kept = next((n for n, key in enumerate(found) if key not in self.kept), len(found))
        self.kept.update(found)
        self.read += len(found)
        self.found += kept
        return kept

    def fault(self, question: str) -> str:
        """What goes wrong with this request; a reply is spoiled once per question at most."""
        kinds = self.options.kinds
        if self.options.always and not 0 < self.options.mended_after < self.requests:
            return str(self.options.always)
        if self.random.random() >= self.options.faults:
            return ""
        kind = self.random.choice(kinds)
        if kind in CONTENT:
            if question in self.spoiled:
                kind = "server_error"
            self.spoiled.add(question)
        return str(kind)

    async def go_wrong(
        self, kind: str, request: web.BaseRequest, question: str
    ) -> web.StreamResponse:
        """The faulty response."""
        key = request.headers.get("Authorization", "")
        match kind:
            case "rate_limited":
                wait = self.options.retry_after
                headers = {"Retry-After": str(wait)} if wait is not None else {}
                self.closed_until = time.monotonic() + (wait or 0.0)
                return error(429, "rate_limit_exceeded", f"slow down {key}", headers)
            case "server_error":
                return error(self.random.choice([500, 502, 503]), "server_error", f"oops {key}")
            case "unauthorised":
                return error(401, "invalid_api_key", f"Incorrect API key provided: {key}")
            case "rejected":
                return error(400, "unknown_parameter", f"Unknown parameter {key}")
            case "too_long":
                return error(400, "context_length_exceeded", "too long")
            case "timeout":
                await asyncio.sleep(self.options.hang)
                return self.answer("too late")
            case "connection":
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case "truncated":
                response = web.StreamResponse(headers={"Content-Length": "5000"})
                await response.prepare(request)
                await response.write(b'{"choices": [{"mess')
                assert request.transport is not None
                request.transport.close()
                return response
            case "invalid_json":
                return web.Response(text='{"choices": [{"message"', content_type="application/json")
            case "rejected_once":
                return error(400, "invalid_value", "Invalid value in this one")
            case "no_code":  # vLLM's way, before it had a code for it
                return error(400, "BadRequestError", "This model's maximum context length is 8192")
            case "listed":  # Gemini's way
                content = {"error": {"code": 400, "message": f"Listed trouble {'.' * 240} {key}"}}
                return web.json_response([content], status=400)
            case "surrogate":
                return self.answer('{"reasons": "half a \\ud83d", "score": 0.5}')
            case "huge_usage":
                huge = completion('{"reasons": "", "score": 0.5}', 2**70, 2**70)
                return web.json_response(huge)
            case "thinking":
                thought = completion('{"reasons": "", "score": 0.5}', 9, 3)
                thought["usage"]["total_tokens"] = 105
                return web.json_response(thought)
            case "of_azure":
                safe = {"hate": {"filtered": False, "severity": "safe"}}
                found = completion(f'{{"reasons": "r", "score": {score(*question.split())}}}', 9, 3)
                found["prompt_filter_results"] = [
                    {"prompt_index": 0, "content_filter_results": safe}
                ]
                found["choices"][0] |= {"content_filter_results": safe, "logprobs": None}
                return web.json_response(found)
            case "of_azure_filter":
                inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}}
                content = {"message": "triggered the content management policy", "type": None,
                           "param": "prompt", "code": "content_filter", "status": 400,
                           "innererror": inner}  # fmt: skip
                return web.json_response({"error": content}, status=400)
            case "of_bedrock":  # gpt-oss thinks in its text
                said = f'{{"reasons": "r", "score": {score(*question.split())}}}'
                found = completion(f"<reasoning>Maybe score: 0.123</reasoning>{said}", 9, 30)
                found |= {"service_tier": "default", "system_fingerprint": None}
                return web.json_response(found)
            case "of_vertex":  # no refusal, an extra message field, tokens of thoughts apart
                said = f'{{"reasons": "r", "score": {score(*question.split())}}}'
                found = completion(said, 9, 3)
                del found["choices"][0]["message"]["refusal"]
                details = {"reasoning_tokens": 20}
                found["usage"] |= {"total_tokens": 32, "completion_tokens_details": details}
                found["usage"]["extra_properties"] = {"google": {"traffic_type": "ON_DEMAND"}}
                return web.json_response(found)
            case "of_openrouter":
                said = f'{{"reasons": "r", "score": {score(*question.split())}}}'
                found = completion(said, 9, 3)
                found["provider"] = "Somebody"
                found["choices"][0] |= {"native_finish_reason": "eos", "logprobs": None}
                found["choices"][0]["message"] |= {"reasoning": None}
                found["usage"] |= {"cost": 0.00012, "prompt_tokens_details": {"cached_tokens": 4}}
                return web.json_response(found)
            case "of_openrouter_error":  # of the provider behind it, with status 200
                found = completion("", 9, 0, "error")
                found["choices"][0]["error"] = {"code": 502, "message": "Provider returned error",
                                                "metadata": {"provider_name": "S"}}  # fmt: skip
                return web.json_response(found)
            case "first":  # whatever is shown first is better
                return self.answer('{"reasons": "the first", "score": -1}')
            case "coin":
                return self.answer(f'{{"reasons": "", "score": {random.choice((-1, 1))}}}')
            case "always_tie":
                return self.answer('{"reasons": "", "score": 0}')
            case "thinks":
                said = f"<think>Maybe score: 0.123\n</think>\nscore: {score(*question.split())}"
                return self.answer(said)
            case "beside":  # as vLLM with a reasoning parser and a schema
                said = json.dumps({"reasons": "r", "score": score(*question.split())})
                return self.beside(reasoning_content=said)
            case "tool":
                said = json.dumps({"reasons": "r", "score": score(*question.split())})
                call = {"type": "function", "function": {"name": "json", "arguments": said}}
                return self.beside(finish="tool_calls", tool_calls=[call])
            case "thoughts_only":
                return self.beside(reasoning="I think of score: 1")
            case "flat":  # as vLLM and LiteLLM do
                text = "This model's maximum context length is 8192 tokens"
                return web.json_response(
                    {"object": "error", "message": text, "code": 400}, status=400
                )
            case "detail":  # as FastAPI does
                found = [{"loc": ["body", "top_q"], "msg": "Extra inputs are not permitted"}]
                return web.json_response({"detail": found}, status=422)
            case "page":
                return web.Response(text="<h1>Bad gateway to nowhere</h1>", status=400)
            case "no_usage":
                plain = completion(f'{{"reasons": "", "score": {score(*question.split())}}}', 1, 1)
                del plain["usage"]
                return web.json_response(plain)
            case "reads_half":
                said = f'{{"reasons": "", "score": {score(*question.split())}}}'
                return web.json_response(completion(said, 40, 60))
            case "refused":
                return self.answer("", refusal=f"I cannot help with that {key}")
            case "cut_off":
                return self.answer('{"reasons": "on and on', finish="length")
        content = {
            "empty": "",
            "unparsable": f"Hard to say, both are fine. {key}",
            "out_of_range": '{"reasons": "", "score": 7}',
            "not_a_number": '{"reasons": "", "score": NaN}',
        }[kind]
        return self.answer(content)

    def answer(
        self, content: str, finish: str = "stop", refusal: str | None = None
    ) -> web.Response:
        """A response of status 200."""
        if finish == "stop" and refusal is None:
            text = self.template.replace('"@"', json.dumps(content))
        else:
            text = json.dumps(completion(content, 900, 60, finish, refusal))
        return web.Response(text=text, content_type="application/json")

    def beside(self, finish: str = "stop", **fields: Any) -> web.Response:
        """A response with an empty text, and something in other fields."""
        content = completion("", 900, 60, finish)
        content["choices"][0]["message"] |= {"content": None, **fields}
        return web.json_response(content)

    async def counts(self) -> web.Response:
        """What happened so far."""
        return web.json_response(
            {
                "requests": self.requests,
                "early": self.early,
                "most_in_flight": self.most_flying,
                "faults": self.faults,
                "answered": {question: len(at) for question, at in self.answered.items()},
                "answered_at": self.answered,
                "corrected": self.corrected,
                "body": self.body,
                "kept": self.found / max(self.read, 1),
                "batches": len(self.batches.made) + len(self.message_batches.made),
                "billed_in_batches": self.batches.billed + self.message_batches.billed,
                "batch_states": [batch["status"] for batch in self.batches.made.values()],
                "times": self.times,
            }
        )


class Batches:
    """Files and batches as OpenAI has them. A batch is answered `--batch-delay` seconds after it
    was created; of its requests `--batch-errors` fail, and every `--batch-expires`th is not reached
    before the batch expires."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.files: dict[str, bytes] = {}
        self.billed = 0  # requests
        self.made: dict[str, dict[str, Any]] = {}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request about files or batches."""
        options, path = self.endpoint.options, request.path.removeprefix("/v1")
        roll = self.endpoint.random.random()
        if roll < options.batch_faults:
            return error(503, "server_error", "try again")
        if path == "/files":
            found = [part async for part in await request.multipart() if await self.kept(part)]
            assert not found
            return web.json_response({"id": f"file-{len(self.files)}", "object": "file"})
        if path == "/batches" and request.method == "POST":
            self.create(await request.json())
            batch = list(self.made.values())[-1]
            if roll < options.batch_faults + options.batch_lost:  # created, and nobody knows
                assert request.transport is not None
                request.transport.abort()
            return web.json_response(batch)
        if path == "/batches":
            listed = list(self.made.values())[::-1]
            return web.json_response({"data": listed[:100], "has_more": len(listed) > 100})
        if path.startswith("/files/") and options.batch_gone == "file":
            return error(404, "not_found", "No such file")
        if path.startswith("/files/"):
            return web.Response(body=self.files[path.split("/")[2]])
        batch = self.made.get(path.split("/")[2])
        if batch is None or options.batch_gone == "batch":
            return error(404, "not_found", "No such batch")
        if path.endswith("/cancel"):
            if batch["status"] != "in_progress":
                return error(409, "conflict", f"a batch that is {batch['status']}")
            batch |= {"status": "cancelling", "created_at": time.time()}
            return web.json_response(batch)
        self.go_on(batch)
        return web.json_response(batch)

    async def kept(self, part: Any) -> bool:
        """Keep the file of a form; never true."""
        if part.name == "file":
            self.files[f"file-{len(self.files) + 1}"] = await part.read()
        return False

    def create(self, asked: dict[str, Any]) -> None:
        """A batch of the requests in a file."""
        assert asked["endpoint"] == "/v1/chat/completions"
        assert asked["completion_window"] == "24h"
        name = f"batch-{len(self.made) + 1}"
        file = asked["input_file_id"]
        self.made[name] = {
            "id": name, "object": "batch", "status": "in_progress", "input_file_id": file,
            "metadata": asked["metadata"], "created_at": time.time(),
        }  # fmt: skip

    def go_on(self, batch: dict[str, Any]) -> None:
        """Answer a batch whose time has come."""
        options = self.endpoint.options
        late = time.time() - batch["created_at"] < options.batch_delay
        if batch["status"] not in ("in_progress", "cancelling") or late:
            return
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        others = [one for one in self.made.values() if one["status"] == "in_progress"]
        if options.batch_fails == "invalid" or (options.batch_fails == "full" and len(others) > 1):
            code = {"full": "token_limit_exceeded"}.get(options.batch_fails, "invalid_request")
            said = {"code": code, "message": f"as {code} says", "line": None, "param": None}
            batch |= {"status": "failed", "errors": {"object": "list", "data": [said]}}
            return
        good, bad = [], []
        expires, errors = options.batch_expires, options.batch_errors
        cancelled = batch["status"] == "cancelling"  # a half of it was answered before
        for n, line in enumerate(lines):
            if cancelled and n % 2:
                continue
            if expires and n % expires == expires - 1:
                code = {"code": "batch_expired", "message": "not reached in time"}
                bad.append({"custom_id": line["custom_id"], "response": None, "error": code})
                continue
            question, said = self.endpoint.said_to(line["body"]["messages"])
            status, body = 200, completion(said, 900, 60)
            if self.endpoint.random.random() < errors:
                kind = self.endpoint.random.choice(["refused", "unparsable", "server_error"])
                status = 500 if kind == "server_error" else 200
                content = {
                    "refused": completion("", 900, 0, refusal="I cannot"),
                    "unparsable": completion("Both are fine.", 900, 60),
                    "server_error": {"error": {"code": "server_error", "message": "oops"}},
                }
                body = content[kind]
            else:
                self.endpoint.answered.setdefault(question, []).append(time.time())
            good.append(
                {
                    "id": f"r{n}", "custom_id": line["custom_id"], "error": None,
                    "response": {"status_code": status, "request_id": f"x{n}", "body": body},
                }
            )  # fmt: skip
        self.billed += sum(line["response"]["status_code"] == 200 for line in good)
        for which, found in (("output_file_id", good), ("error_file_id", bad)):
            if found:
                file = f"file-out-{len(self.files)}"
                self.files[file] = "\n".join(map(json.dumps, found)).encode()
                batch[which] = file
        batch["status"] = "cancelled" if cancelled else "expired" if bad else "completed"


class MessageBatches:
    """Batches as Anthropic has them, under the same options."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.billed = 0  # requests
        self.made: dict[str, dict[str, Any]] = {}
        self.asked: dict[str, list[dict[str, Any]]] = {}
        self.found: dict[str, list[dict[str, Any]]] = {}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """One request about batches."""
        options, path = self.endpoint.options, request.path.removeprefix("/v1/messages/batches")
        roll = self.endpoint.random.random()
        if roll < options.batch_faults:
            return problem(529, "overloaded_error", "Overloaded")
        if not request.headers.get("anthropic-version") or "Authorization" in request.headers:
            return problem(401, "authentication_error", "x-api-key and a version are needed")
        if path.endswith("/cancel"):
            batch = self.made[path.split("/")[1]]
            if batch["processing_status"] != "in_progress":
                return problem(400, "invalid_request_error", "it has ended")
            batch |= {"processing_status": "canceling", "at": time.time()}
            return web.json_response(batch)
        if request.method == "POST":
            running = [b for b in self.made.values() if b["processing_status"] == "in_progress"]
            if options.batch_fails == "invalid":
                return problem(400, "invalid_request_error", "as invalid_request says")
            if options.batch_fails == "full" and running:
                return problem(429, "rate_limit_error", "too many requests in the queue")
            batch = self.create((await request.json())["requests"])
            if roll < options.batch_faults + options.batch_lost:  # created, and nobody knows
                assert request.transport is not None
                request.transport.abort()
            return web.json_response(batch)
        if not path:
            listed = list(self.made.values())[::-1]
            after = request.query.get("after_id")
            first = 1 + [batch["id"] for batch in listed].index(after) if after else 0
            page = listed[first : first + 2]  # of whatever size is asked for
            more = first + 2 < len(listed)
            last = page[-1]["id"] if page else None
            return web.json_response({"data": page, "has_more": more, "last_id": last})
        _, name, *rest = path.split("/")
        if name not in self.made or options.batch_gone == "batch":
            return problem(404, "not_found_error", "Not found")
        if rest == ["results"]:
            if options.batch_gone == "file":
                return problem(404, "not_found_error", "Not found")
            return web.Response(body="\n".join(map(json.dumps, self.found[name])).encode())
        self.go_on(name)
        return web.json_response(self.made[name])

    def create(self, requests: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch of requests."""
        assert all(re.fullmatch("[a-zA-Z0-9_-]{1,64}", one["custom_id"]) for one in requests)
        name = f"msgbatch_{len(self.made) + 1}"
        self.asked[name] = requests
        counts = {"processing": len(requests), "succeeded": 0, "errored": 0, "canceled": 0}
        self.made[name] = {
            "id": name, "type": "message_batch", "processing_status": "in_progress",
            "request_counts": counts | {"expired": 0}, "results_url": None, "at": time.time(),
            "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }  # fmt: skip
        return self.made[name]

    def go_on(self, name: str) -> None:
        """Answer a batch whose time has come."""
        options, batch = self.endpoint.options, self.made[name]
        late = time.time() - batch["at"] < options.batch_delay
        if batch["processing_status"] == "ended" or late:
            return
        cancelled = batch["processing_status"] == "canceling"  # a half was answered before
        self.found[name] = [
            {
                "custom_id": one["custom_id"],
                "result": {"type": "canceled"} if cancelled and n % 2
                else self.result(n, one["params"]),
            }
            for n, one in enumerate(self.asked[name])
        ]  # fmt: skip
        counts = Counter(one["result"]["type"] for one in self.found[name])
        batch |= {"processing_status": "ended", "results_url": "https://elsewhere.invalid/"}
        batch["request_counts"] = dict.fromkeys(batch["request_counts"], 0) | counts
        self.billed += counts["succeeded"]
        random.Random(0).shuffle(self.found[name])  # in any order

    def result(self, n: int, params: dict[str, Any]) -> dict[str, Any]:
        """What one request came to."""
        options = self.endpoint.options
        assert set(params) <= {"model", "max_tokens", "system", "messages", "temperature"}
        if options.batch_expires and n % options.batch_expires == options.batch_expires - 1:
            return {"type": "expired"}
        system = [{"role": "system", "content": params["system"]}] if "system" in params else []
        question, said = self.endpoint.said_to([*system, *params["messages"]])
        reason = "end_turn"
        if self.endpoint.random.random() < options.batch_errors:
            kind = self.endpoint.random.choice(["refusal", "unparsable", "api_error"])
            if kind == "api_error":
                error = {"type": "api_error", "message": "oops"}
                return {"type": "errored", "error": {"type": "error", "error": error}}
            said, reason = ("", kind) if kind == "refusal" else ("Both are fine.", reason)
        else:
            self.endpoint.answered.setdefault(question, []).append(time.time())
        if options.batch_odd and n % options.batch_odd == 0:
            return {"type": "succeeded", "message": {"content": None, "usage": None}}
        blocks = [{"type": "thinking", "thinking": "hm", "signature": "x"}]
        blocks += [{"type": "text", "text": said}] if said else []
        usage = {"input_tokens": 700, "output_tokens": 60, "cache_read_input_tokens": 150,
                 "cache_creation_input_tokens": 50}  # fmt: skip
        message = {"type": "message", "role": "assistant", "content": blocks,
                   "stop_reason": reason, "usage": usage}  # fmt: skip
        return {"type": "succeeded", "message": message}


def problem(status: int, kind: str, message: str) -> web.Response:
    """An error as Anthropic says it."""
    said = {"type": "error", "error": {"type": kind, "message": message}}
    return web.json_response(said, status=status)


BLOCK = 16  # tokens, of four characters, that a server keeps together


def prefixes(messages: list[dict[str, str]]) -> list[int]:
    """Hashes of a prompt's beginnings, one for each whole block."""
    text = json.dumps(messages)
    ends = range(4 * BLOCK, len(text) + 1, 4 * BLOCK)
    return [hash(text[:end]) for end in ends]


def worths(prompt: str) -> tuple[str, str]:
    """What the documents in a prompt are worth: as they say, or else by a hash of each."""
    stated = WORTH.findall(prompt)[:2]
    if len(stated) == 2:
        return stated[0], stated[1]
    texts = [text.split("]]\n", 1)[1] for text in re.split(r"\[\[document", prompt)[1:3]]
    texts = [text.split("\n[[end")[0] for text in texts]
    a, b = (f"{zlib.crc32(text.encode()) % 4000 / 1000}" for text in texts)
    return a, b


def documents_shown(prompt: str, words: bool) -> tuple[list[str], dict[str, float]]:
    """Labels of the documents in a prompt, in the order shown, and what each is worth: as it says,
    or by shared words."""
    query = re.findall(r"\[\[query [^\n]*\]\]\n(.*?)\n\[\[end of", prompt, re.DOTALL)[0]
    found = re.findall(r"\[\[document (\w\d) [^\n]*\]\]\n(.*?)\n\[\[end of", prompt, re.DOTALL)
    labels = [label for label, _ in found]
    if words:
        return labels, {label: worth_by_words(query, text) for label, text in found}
    return labels, {label: float(WORTH.findall(text)[0]) for label, text in found}


def ordered(worth: dict[str, float], spoil: str) -> str:
    """An order by worth, equal ones tied; `spoil` leaves the worst out (`missing`), adds a label
    that was not shown (`invented`), has the best twice (`doubled`), or ends in the middle
    (`begun`)."""
    places = [
        [k for k in worth if worth[k] == value] for value in sorted(set(worth.values()))[::-1]
    ]
    if spoil == "missing":
        places = places[:-1]
    if spoil == "invented":
        places.insert(1, ["Q0"])
    if spoil == "doubled":
        places.append([places[0][0]])
    said = json.dumps({"order": places, "relevant": sum(value > 0 for value in worth.values())})
    return said[: len(said) // 2] if spoil == "begun" else said


def best_of(worth: dict[str, float]) -> str:
    """The label of the document of most worth."""
    return json.dumps({"best": max(worth, key=lambda label: worth[label])})


def queries_of(prompt: str, kinds: list[str]) -> str:
    """A reply with one query of each kind: some neighbouring words of the document."""
    words = re.split(r"\]\]\n|\n\[\[end", prompt)[1].split()
    queries = [
        {"kind": kind, "text": " ".join(words[3 * i : 3 * i + 5])} for i, kind in enumerate(kinds)
    ]
    return json.dumps({"queries": queries})


def question_of(messages: list[dict[str, str]]) -> str:
    """What the user says first."""
    return next(said["content"] for said in messages if said["role"] == "user")


def grade_of(prompt: str, words: bool) -> float:
    """A grade from 0 to 3 of the document in a prompt: as it says, or by shared words."""
    query, text = re.findall(r"\]\]\n(.*?)\n\[\[end of", prompt, re.DOTALL)[:2]
    worth = worth_by_words(query, text) if words else float(WORTH.findall(text)[0])
    return max(0.0, min(3.0, worth))


def one_digit(grade: float, how: str) -> dict[str, Any]:
    """A reply of one digit with log-probabilities whose mean is the grade; `none` without one."""
    low = min(int(grade), 2)
    p = {str(low): 1 - (grade - low), str(low + 1): grade - low}
    listed = [{"token": d, "logprob": math.log(0.8 * q)} for d, q in p.items() if q > 0]
    rest = [{"token": "The", "logprob": math.log(0.01)}]
    listed = rest if how == "none" else [*listed, *rest]
    content = completion(str(listed[0]["token"]), 900, 1, "length")
    content["choices"][0]["logprobs"] = {"content": [{**listed[0], "top_logprobs": listed}]}
    return content


def realism_of(query: str) -> float:
    """How likely somebody asks a query: half of all are, by their checksums."""
    return 0.5 if zlib.crc32(query.encode()) % 2 else -0.5


PARTS = re.compile(r"\[\[(?:query|document [AB]) [^\n]*\]\]\n(.*?)\n\[\[end of", re.DOTALL)


def shared_words(prompt: str) -> tuple[str, str]:
    """What the documents in a prompt are worth: by how many of the query's words they hold."""
    query, a, b = PARTS.findall(prompt)[:3]
    return f"{worth_by_words(query, a):.3f}", f"{worth_by_words(query, b):.3f}"


def worth_by_words(query: str, document: str) -> float:
    """How many of a query's words a document holds; short ones say little, and so does one of
    many."""
    wanted, words = (set(re.findall(r"\w+", text.lower())) for text in (query, document))
    return sum(len(w) - 2 for w in wanted & words if len(w) > 3) / (4 + len(words) / 50)


def score(a: str, b: str) -> float:
    """The score that a question is answered with."""
    return round(max(-1.0, min(1.0, (float(b) - float(a)) / 2)), 6)


def completion(
    content: str, tokens_in: int, tokens_out: int, finish: str = "stop", refusal: str | None = None
) -> dict[str, Any]:
    """A chat completion."""
    message = {"role": "assistant", "content": content, "refusal": refusal}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
        },
    }


def one_letter(score: float, how: str) -> dict[str, Any]:
    """A reply of one token that was asked for log-probabilities; `how` they are: `both` letters
    with and without a space, `space` first, the likelier letter `alone`, `none` of the two."""
    p = {"A": (1 - score) / 2, "B": (1 + score) / 2}
    listed = [
        {"token": f"{space}{letter}", "logprob": math.log(0.4 * share) if share else -9999.0}
        for letter, share in p.items() for space in ("", " ")
    ]  # fmt: skip
    listed.sort(key=lambda one: -float(one["logprob"]))
    rest = [{"token": "The", "logprob": math.log(0.01)}]
    listed = {"alone": [*listed[:1], *rest], "none": rest}.get(how, [*listed, *rest])
    first = {**listed[0], "top_logprobs": listed}
    space = {"token": "\n", "logprob": -0.1, "top_logprobs": [{"token": "\n", "logprob": -0.1}]}
    content = completion(str(listed[0]["token"]), 900, 1, "length")
    places = [space, first] if how == "space" else [first]
    content["choices"][0]["logprobs"] = {"content": places}
    return content


def error(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    """An error as OpenAI words it."""
    content = {"error": {"message": message, "type": code, "code": code}}
    return web.json_response(content, status=status, headers=headers)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--spread", type=float, default=0.0, help="of latencies: up to this share")
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=[*WIRE, *CONTENT])
    parser.add_argument("--always", default="", help="a fault that every request has")
    parser.add_argument("--retry-after", type=float, default=None)
    parser.add_argument("--hang", type=float, default=5.0, help="seconds of a time-out")
    parser.add_argument("--key", default="", help="the only key that is let in")
    parser.add_argument("--azure", default="", help="the key in the header api-key")
    parser.add_argument("--mended-after", type=int, default=0, help="faults end after so many")
    parser.add_argument("--words", action="store_true", help="judge by shared words")
    parser.add_argument("--cache", action="store_true", help="keep the beginnings of prompts")
    parser.add_argument("--logprobs", default="", help="how they are given, where asked for")
    parser.add_argument("--no-system", action="store_true", help="know no system role")
    parser.add_argument("--spoil", default="", help="what is wrong with each order of a block")
    parser.add_argument("--batch-delay", type=float, default=0.0, help="seconds")
    parser.add_argument("--batch-errors", type=float, default=0.0, help="share of requests")
    parser.add_argument("--batch-expires", type=int, default=0, help="every so many are late")
    parser.add_argument("--batch-fails", default="", help="invalid, or full while others run")
    parser.add_argument("--batch-gone", default="", help="batch, or file")
    parser.add_argument("--batch-faults", type=float, default=0.0, help="of requests about them")
    parser.add_argument("--batch-odd", type=int, default=0, help="every so many are no messages")
    parser.add_argument("--batch-lost", type=float, default=0.0, help="created without a reply")
    parser.add_argument("--rpm", action="store_true", help="note the time of each request")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=0)
    endpoint = Endpoint(parser.parse_args())

    async def serve() -> None:
        # Without an application's routing, which costs as much as the rest.
        runner = web.ServerRunner(
            web.Server(endpoint.handle, access_log=None, handler_cancellation=True)
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", endpoint.options.port, backlog=4096)
        await site.start()
        print("http://{}:{}".format(*runner.addresses[0][:2]), flush=True)
        await asyncio.Event().wait()

    with contextlib.suppress(ImportError):  # half the work per request, where it is installed
        import uvloop

        uvloop.install()
    asyncio.run(serve())


class Running:
    """An endpoint in a process of its own."""

    def __init__(self, address: str, process: subprocess.Popen[str]) -> None:
        self.address, self.process = address, process
        self.base_url = f"{address}/v1"

    def counts(self) -> dict[str, Any]:
        """What happened so far."""
        with urllib.request.urlopen(f"{self.address}/counts", timeout=60) as response:
            content: dict[str, Any] = json.load(response)
        return content

    def release(self) -> None:
        """Let batches be answered that were held back."""
        urllib.request.urlopen(f"{self.address}/release", timeout=60).close()


@contextmanager
def running(**options: object) -> Iterator[Running]:
    """Start an endpoint with options as on its command line, and end it afterwards."""
    arguments = []
    for name, value in options.items():
        arguments += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.judging.endpoint", *arguments],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield Running(process.stdout.readline().strip(), process)
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main()
