"""Questions sent as batches, which providers answer within a day at half the price.

OpenAI's protocol: a file of requests is uploaded, a batch of it is created and polled, and its
results are fetched as files. A batch is in the ledger before it leaves, with the questions in it: a
run that is killed, or another process with the same home a day later, finds it there and waits for
it in place of asking again. One that left just before a kill, so that its name at the provider was
never written down, is found at the provider by the name that it was given here. It is forgotten
when all of its questions have answers in the ledger.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from zelo.judging import prompt
from zelo.judging.base import RequestContext
from zelo.judging.endpoint import redact
from zelo.judging.ledger import Key, key_of, ledger_question
from zelo.judging.question import Answer, Question
from zelo.judging.wire import RequestOutcome, Wire
from zelo.progress import say

OVER = {"completed", "expired", "cancelled", "failed"}
ATTEMPTS = 5  # of a request about a batch
MARK = "zelo"  # under which a batch carries the name that it has here
LARGEST = 90 * 2**20  # bytes of a file
ENDPOINT = "/v1/chat/completions"
FINAL = {"reply", "cut_off", "refused", "too_long"}  # what is read, or not asked again

TABLES = """
CREATE TABLE IF NOT EXISTS batches (
    name TEXT PRIMARY KEY,     -- made up here
    judge TEXT NOT NULL,       -- fingerprint
    remote TEXT,               -- its name at the provider; null: it may not have left
    secret BLOB NOT NULL,      -- what codes and labels of its prompts were made with
    run TEXT NOT NULL,         -- whose budget it counts for
    time REAL NOT NULL         -- seconds since 1970, when it was written
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batch_questions (
    batch TEXT NOT NULL,
    number INTEGER NOT NULL,   -- the line of the file
    query BLOB NOT NULL,       -- as in the table answers, as are the next three
    doc_a BLOB NOT NULL,
    doc_b BLOB NOT NULL,
    repeat INTEGER NOT NULL,
    reserved REAL NOT NULL,    -- USD that it may cost at most
    PRIMARY KEY (batch, number)
) WITHOUT ROWID;
"""
ANSWERED = """
DELETE FROM batches WHERE judge = ? AND NOT EXISTS (
    SELECT 1 FROM batch_questions AS q WHERE q.batch = batches.name AND NOT EXISTS (
        SELECT 1 FROM answers AS a WHERE a.judge = batches.judge AND a.query = q.query
        AND a.doc_a = q.doc_a AND a.doc_b = q.doc_b AND a.repeat = q.repeat
    )
)
"""
ORPHANS = "DELETE FROM batch_questions WHERE batch NOT IN (SELECT name FROM batches)"


@dataclass
class Batch:
    """A batch under way: its questions' keys, and what each may cost, by the line of its file."""

    name: str
    remote: str | None
    secret: bytes
    run: str
    keys: dict[int, Key]
    reserved: dict[int, float]


class BatchLedger:
    """Which batches of one judge are under way, in the file of the ledger."""

    def __init__(self, path: Path, judge: str) -> None:
        self.judge = judge
        self.connection = sqlite3.connect(path, timeout=60)
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.executescript(TABLES)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def keep(self, batch: Batch) -> None:
        """Write a batch down, before it leaves."""
        row = (batch.name, self.judge, batch.remote, batch.secret, batch.run, time.time())
        lines = [(batch.name, n, *key[1:], batch.reserved[n]) for n, key in batch.keys.items()]
        with self.connection:
            self.connection.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?)", row)
            self.connection.executemany(
                "INSERT INTO batch_questions VALUES (?, ?, ?, ?, ?, ?, ?)", lines
            )

    def has_left(self, batch: Batch, remote: str) -> None:
        """Write down what the provider calls it."""
        batch.remote = remote
        with self.connection:
            self.connection.execute(
                "UPDATE batches SET remote = ? WHERE name = ?", (remote, batch.name)
            )

    def forget(self, batch: Batch) -> None:
        """Forget a batch that never left, or whose results are not there any more."""
        with self.connection:
            self.connection.execute("DELETE FROM batches WHERE name = ?", (batch.name,))
            self.connection.execute(ORPHANS)

    def under_way(self) -> list[Batch]:
        """The batches that have questions without an answer."""
        with self.connection:
            self.connection.execute(ANSWERED, (self.judge,))
            self.connection.execute(ORPHANS)
        rows = self.connection.execute(
            "SELECT name, remote, secret, run FROM batches WHERE judge = ? ORDER BY time",
            (self.judge,),
        ).fetchall()
        found = []
        for name, remote, secret, run in rows:
            lines = self.connection.execute(
                "SELECT number, query, doc_a, doc_b, repeat, reserved FROM batch_questions "
                "WHERE batch = ?",
                (name,),
            ).fetchall()
            keys = {n: (self.judge, *key) for n, *key, _ in lines}
            reserved = {n: usd for n, *_, usd in lines}
            found.append(Batch(name, remote, secret, run, keys, reserved))
        return found


class AskedInBatches(Protocol):
    """A session at an endpoint, as far as batches need it."""

    fingerprint: str
    depends_on_ids: ClassVar[bool]

    def body(self, question: Question) -> dict[str, Any]:
        """The request that asks a question."""
        ...

    def answer_from(self, outcome: RequestOutcome, question: Question) -> Answer | None:
        """The answer that a reply holds; None where it cannot be read."""
        ...

    def take(self, question: Question, answer: Answer, context: RequestContext) -> None:
        """Hand an answer on."""
        ...


class BatchTroubleError(Exception):
    """What the provider said that ends the asking by batches."""


@dataclass
class BatchClient:
    """The provider's endpoints for files and batches."""

    wire: Wire

    async def call(
        self,
        method: str,
        path: str,
        attempts: int = ATTEMPTS,
        content: Any = None,
        form: Callable[[], Any] | None = None,
    ) -> bytes:
        """What the provider answers to JSON, or to a form, tried again where that may help; raises
        `BatchTroubleError`."""
        import aiohttp

        trouble = "stopped"
        for attempt in range(attempts):
            sent: dict[str, Any] = {"json": content} if content else {}
            if form:
                data = form()()
                # The account's own headers say that all is JSON.
                sent = {"data": data, "headers": {"Content-Type": data.headers["Content-Type"]}}
            try:
                async with self.wire.http.request(
                    method, self.wire.provider.address(path), allow_redirects=False, **sent
                ) as response:
                    raw = await response.read()
                    if response.status == 200:
                        return raw
                    trouble = f"{response.status} {raw.decode('utf-8', 'replace')[:300]}"
                    if response.status not in (408, 409, 429) and response.status < 500:
                        break
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                trouble = f"{type(error).__name__} {error}"
            if await self.wire.context.sleep(0.2 * 2**attempt):
                break
        raise BatchTroubleError(redact(f"{method} {path}: {trouble}", self.wire.key))

    async def json(self, method: str, path: str, **sent: Any) -> dict[str, Any]:
        """The same as an object."""
        try:
            found = json.loads(await self.call(method, path, **sent))
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise BatchTroubleError(f"{method} {path}: no JSON object came back")
        return found

    async def create(self, name: str, lines: Sequence[bytes]) -> str:
        """Upload a file of requests and create a batch of it; its name at the provider.

        Where it is not known whether it was created, it is looked for, and not created twice.
        """
        import aiohttp

        def form() -> aiohttp.FormData:
            made = aiohttp.FormData({"purpose": "batch"})
            made.add_field("file", b"\n".join(lines), filename=f"{name}.jsonl")
            return made

        file = await self.json("POST", "/files", form=form)
        asked = {
            "input_file_id": file["id"],
            "endpoint": ENDPOINT,
            "completion_window": "24h",
            "metadata": {MARK: name},
        }
        for attempt in range(ATTEMPTS):
            try:
                made = await self.json("POST", "/batches", content=asked, attempts=1)
                return str(made["id"])
            except BatchTroubleError as trouble:
                if (found := await self.named(name)) is not None:
                    return found
                if attempt + 1 == ATTEMPTS or await self.wire.context.sleep(0.2 * 2**attempt):
                    raise trouble from None
        raise AssertionError  # the last attempt returns or raises

    async def named(self, name: str) -> str | None:
        """What the provider calls the batch that has a name here; None where it has none."""
        after = ""
        while True:
            page = await self.json("GET", f"/batches?limit=100{after}")
            for batch in page.get("data", []):
                if (batch.get("metadata") or {}).get(MARK) == name:
                    return str(batch["id"])
            if not page.get("has_more") or not page.get("data"):
                return None
            after = f"&after={page['data'][-1]['id']}"

    async def results(self, state: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Line and result of every request of a batch that is over."""
        lines: list[bytes] = []
        for which in ("output_file_id", "error_file_id"):
            if file := state.get(which):
                lines += (await self.call("GET", f"/files/{file}/content")).splitlines()
        return (
            (int(result["custom_id"]), result) for result in map(json.loads, filter(None, lines))
        )


async def answer_in_batches(
    session: AskedInBatches, questions: Sequence[Question], wire: Wire, context: RequestContext
) -> list[Question]:
    """Have the provider answer questions in batches, those that are under way among them, and hand
    on what comes; the questions that are to be asked one by one, since their answer could not be
    read, failed or expired.

    `wire` has the price of a batch. Where the run is being stopped, batches stay under way.
    """
    known = {
        key_of(session.fingerprint, ledger_question(q, session.depends_on_ids)): q
        for q in questions
    }
    client = BatchClient(wire)
    one_by_one: list[Question] = []
    with closing(BatchLedger(context.ledger, session.fingerprint)) as book:
        waiting = [b for b in book.under_way() if not known.keys().isdisjoint(b.keys.values())]
        for batch in list(waiting):
            if batch.remote is None and (remote := await client.named(batch.name)) is not None:
                book.has_left(batch, remote)
            if batch.remote is None:
                book.forget(batch)
                waiting.remove(batch)
        if waiting:
            number = sum(len(batch.keys) for batch in waiting)
            say(f"  {wire.provider.name}: {number:,} questions were sent in batches before")
        for batch in waiting:
            context.spending.open += len(batch.keys) if batch.run == context.run else 0
        flying = {key for batch in waiting for key in batch.keys.values()}
        fresh = {key: q for key, q in known.items() if key not in flying}
        if len(fresh) < wire.provider.batch_least:
            one_by_one += fresh.values()
            fresh.clear()
        while (fresh or waiting) and not context.stopping:
            while fresh and not context.stopping:
                sent = await submit(session, fresh, client, book, context)
                if sent is None:
                    break  # until what is in flight has cost less than was reserved
                waiting.append(sent)
                say(f"  {wire.provider.name}: batch {sent.remote}: {len(sent.keys):,} questions")
            for batch in list(waiting):
                state = await client.json("GET", f"/batches/{batch.remote}")
                if state.get("status") in OVER:
                    one_by_one += await take(session, batch, state, known, client, context)
                    waiting.remove(batch)
            if waiting and await context.sleep(wire.provider.batch_poll):
                break
        if waiting:
            number = sum(len(batch.keys) for batch in waiting)
            say(
                f"  {wire.provider.name}: {number:,} questions are under way in batches; the same "
                f"command fetches their answers"
            )
    return one_by_one


async def submit(
    session: AskedInBatches,
    fresh: dict[Key, Question],
    client: BatchClient,
    book: BatchLedger,
    context: RequestContext,
) -> Batch | None:
    """Send the first of the questions as a batch, as many as fit into one and into the budget, and
    take them out of `fresh`; None where none does."""
    wire = client.wire
    lines: list[bytes] = []
    keys: dict[int, Key] = {}
    reserved: dict[int, float] = {}
    size = 0
    for key, question in fresh.items():
        body = session.body(question)
        request = {"custom_id": str(len(lines)), "method": "POST", "url": ENDPOINT, "body": body}
        line = json.dumps(request).encode()
        most = wire.usd(len(line), wire.max_tokens)  # no token is less than a byte
        full = len(lines) == wire.provider.batch_size or size + len(line) > LARGEST
        if (full and lines) or not context.spending.reserve(most):
            break
        keys[len(lines)], reserved[len(lines)] = key, most
        lines.append(line)
        size += len(line)
    if not lines:
        return None
    batch = Batch(uuid.uuid4().hex, None, prompt.SECRET, context.run, keys, reserved)
    await context.spending_recorded()
    book.keep(batch)
    book.has_left(batch, await client.create(batch.name, lines))
    for key in keys.values():
        del fresh[key]
    return batch


async def take(
    session: AskedInBatches,
    batch: Batch,
    state: Mapping[str, Any],
    known: Mapping[Key, Question],
    client: BatchClient,
    context: RequestContext,
) -> list[Question]:
    """Hand on the answers of a batch that is over; the questions that have none.

    Nothing is taken off the ledger's list: what is handed on here is written elsewhere, and the
    batch is forgotten when that has been done.
    """
    wire, spending = client.wire, context.spending
    outcomes = {n: outcome_of(result, wire) for n, result in await client.results(state)}
    left = []
    for number, key in batch.keys.items():
        question, outcome = known.get(key), outcomes.get(number)
        ours = batch.run == context.run
        if question is None:
            spending.open -= ours
            continue
        if ours:
            spending.settle(batch.reserved[number], 0.0 if outcome is None else outcome.usd)
        if outcome is None or outcome.kind not in FINAL:
            context.count_failure(outcome.kind if outcome else str(state.get("status")))
            left.append(question)
            continue
        with prompt.made_with(batch.secret):
            answer = session.answer_from(outcome, question)
        if answer is None:
            left.append(question)
        else:
            session.take(question, answer, context)
    return left


def outcome_of(result: Mapping[str, Any], wire: Wire) -> RequestOutcome | None:
    """What one request of a batch came to; None where it was not made."""
    response = result.get("response")
    if not isinstance(response, dict) or response.get("status_code") is None:
        return None
    return wire.outcome(int(response["status_code"]), response.get("body"))
