"""A provider's endpoints for files and batches, in OpenAI's protocol: a file of requests is
uploaded, a batch of it is created and polled, and its results are fetched as files."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from zelo.judging.batch_ledger import Batch
from zelo.judging.endpoint import redact
from zelo.judging.wire import Wire

ATTEMPTS = 5  # of a request about a batch
OVERLOADED = 529  # Anthropic's status where nothing was done
MARK = "zelo"  # under which a batch carries the name that it has here
ENDPOINT = "/v1/chat/completions"


class BatchTroubleError(Exception):
    """What the provider said that ends the asking by batches; `passing` where it may pass, `gone`
    where what was asked for is not there, `refused` where it surely did nothing."""

    def __init__(
        self, what: str, passing: bool = False, gone: bool = False, refused: bool = False
    ) -> None:
        super().__init__(what)
        self.passing, self.gone, self.refused = passing, gone, refused


class AnotherProgramError(BatchTroubleError):
    """A batch that was taken for ours holds the requests of another program."""


Creating = Callable[[], Awaitable[dict[str, Any]]]


@dataclass
class BatchClient:
    """The provider's endpoints for files and batches."""

    looks: ClassVar[int] = 4  # for a batch, over some seconds
    guesses: ClassVar[bool] = False  # whether a batch that is found by a look may be another's

    wire: Wire

    async def call(
        self,
        method: str,
        path: str,
        attempts: int = ATTEMPTS,
        content: Any = None,
        data: bytes | None = None,
        form: Callable[[], Any] | None = None,
    ) -> bytes:
        """What the provider answers to JSON (`data` is text of it already), or to a form, tried
        again where that may help; raises `BatchTroubleError`."""
        import aiohttp

        trouble, passing, gone, refused = "stopped", True, False, False
        for attempt in range(attempts):
            sent: dict[str, Any] = {"json": content} if content else {"data": data} if data else {}
            if form:
                made = form()()
                # The account's own headers say that all is JSON.
                sent = {"data": made, "headers": {"Content-Type": made.headers["Content-Type"]}}
            if sent or path.endswith(("/content", "/results")):  # as long as something comes
                longest = self.wire.provider.timeout
                sent["timeout"] = aiohttp.ClientTimeout(
                    total=None, sock_connect=longest, sock_read=longest
                )
            try:
                async with self.wire.http.request(
                    method, self.wire.provider.address(path), allow_redirects=False, **sent
                ) as response:
                    raw = await response.read()
                    if response.status == 200:
                        return raw
                    trouble = f"{response.status} {raw.decode('utf-8', 'replace')[:300]}"
                    passing = response.status in (408, 409, 429) or response.status >= 500
                    gone = response.status == 404
                    refused = response.status in (429, OVERLOADED) or not passing
                    if not passing:
                        break
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                trouble, passing, refused = f"{type(error).__name__} {error}", True, False
            if attempt + 1 < attempts and await self.wire.context.sleep(0.2 * 2**attempt):
                break
        what = redact(f"{method} {path}: {trouble}", self.wire.key)
        raise BatchTroubleError(what, passing, gone, refused)

    async def json(self, method: str, path: str, **sent: Any) -> dict[str, Any]:
        """The same as an object."""
        try:
            found = json.loads(await self.call(method, path, **sent))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise BatchTroubleError(f"{method} {path}: no JSON object came back")
        return found

    def line(self, batch: Batch, number: int, body: Mapping[str, Any]) -> bytes:
        """One request of a batch."""
        request = {"custom_id": str(number), "method": "POST", "url": ENDPOINT, "body": body}
        return json.dumps(request).encode()

    async def creating(self, batch: Batch, lines: Sequence[bytes]) -> Creating:
        """What creates a batch of such lines, whose file is uploaded here."""
        import aiohttp

        def form() -> aiohttp.FormData:
            made = aiohttp.FormData({"purpose": "batch"})
            made.add_field("file", b"\n".join(lines), filename=f"{batch.name}.jsonl")
            return made

        file = await self.json("POST", "/files", form=form)
        asked = {
            "input_file_id": file["id"],
            "endpoint": ENDPOINT,
            "completion_window": "24h",
            "metadata": {MARK: batch.name},
        }

        async def create() -> dict[str, Any]:
            return await self.json("POST", "/batches", content=asked, attempts=1)

        return create

    async def create(self, batch: Batch, lines: Sequence[bytes]) -> tuple[str, bool]:
        """Create a batch of requests; its name at the provider, and whether that is sure.

        Where it is not known whether it was created, it is looked for before it is tried again.
        """
        create = await self.creating(batch, lines)
        for attempt in range(ATTEMPTS):
            try:
                return str((await create())["id"]), True
            except KeyError:
                raise BatchTroubleError("a batch was created without an id") from None
            except BatchTroubleError as trouble:
                unknown = trouble.passing and not trouble.refused
                if unknown and (found := await self.named(batch)) is not None:
                    return found, not self.guesses
                if (
                    not trouble.passing
                    or attempt + 1 == ATTEMPTS
                    or await self.wire.context.sleep(0.2 * 2**attempt)
                ):
                    raise trouble from None
        raise AssertionError  # the last attempt returns or raises

    async def state(self, remote: str) -> dict[str, Any]:
        """How far a batch is."""
        return await self.json("GET", f"/batches/{remote}", attempts=1)

    async def cancel(self, remote: str) -> None:
        """Have the provider answer no more of a batch than it has."""
        await self.call("POST", f"/batches/{remote}/cancel", attempts=1)

    async def named(self, batch: Batch) -> str | None:
        """What the provider calls a batch; None where it has none, at several looks: it may list a
        batch a moment after it was created."""
        for look in range(self.looks):
            if (found := await self._listed(batch)) is not None:
                return found
            if look + 1 < self.looks and await self.wire.context.sleep(0.5 * 2**look):
                break
        return None

    async def _listed(self, batch: Batch) -> str | None:
        async for one in self.listed("/batches", "after"):
            if (one.get("metadata") or {}).get(MARK) == batch.name:
                return str(one["id"])
        return None

    async def listed(self, path: str, cursor: str) -> AsyncIterator[dict[str, Any]]:
        """The batches that the provider lists, the latest first; `cursor` is what it calls the
        last of a page."""
        after = ""
        while True:
            page = await self.json("GET", f"{path}?limit=100{after}")
            batches = page.get("data") or []
            for one in batches:
                yield one
            if not page.get("has_more") or not batches:
                return
            after = f"&{cursor}={batches[-1]['id']}"

    async def results(self, batch: Batch, state: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
        """Line and result of every request of a batch that is over."""
        lines: list[bytes] = []
        for which in ("output_file_id", "error_file_id"):
            if file := state.get(which):
                lines += (await self.call("GET", f"/files/{file}/content")).splitlines()
        rows = map(json.loads, filter(None, lines))
        return {int(result["custom_id"]): result for result in rows}
