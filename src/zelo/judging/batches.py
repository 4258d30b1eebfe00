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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from zelo.judging import prompt
from zelo.judging.base import RequestContext
from zelo.judging.endpoint import redact
from zelo.judging.ledger import Key, key_of, ledger_question
from zelo.judging.question import Question
from zelo.judging.wire import RequestOutcome, Wire
from zelo.progress import say

OVER = {"completed", "expired", "cancelled", "failed"}
ATTEMPTS = 5  # of a request about a batch
LOOKS = 4  # at the provider's list, over some seconds
TIMES = 2  # that a question is sent in batches before it is asked by itself
FULL = "token_limit_exceeded"  # a batch failed since others are under way
MARK = "zelo"  # under which a batch carries the name that it has here
LARGEST = 90 * 2**20  # bytes of a file
ENDPOINT = "/v1/chat/completions"
FINAL = {"reply", "cut_off", "refused", "too_long", "rejected"}  # what is read, or not sent again

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
    judge TEXT NOT NULL,       -- as in the table answers, as are the next four
    query BLOB NOT NULL,
    doc_a BLOB NOT NULL,
    doc_b BLOB NOT NULL,
    repeat INTEGER NOT NULL,
    reserved REAL NOT NULL,    -- USD that count for it: at worst, and when it is known what it cost
    PRIMARY KEY (batch, number)
) WITHOUT ROWID;
"""
ANSWERED = """
DELETE FROM batches WHERE judge = ? AND NOT EXISTS (
    SELECT 1 FROM batch_questions AS q WHERE q.batch = batches.name AND NOT EXISTS (
        SELECT 1 FROM answers AS a WHERE a.judge = q.judge AND a.query = q.query
        AND a.doc_a = q.doc_a AND a.doc_b = q.doc_b AND a.repeat = q.repeat
    )
)
"""
COST = "UPDATE batch_questions SET reserved = ? WHERE batch = ? AND number = ?"
OF_ANOTHER = "UPDATE spent SET usd = usd + ? WHERE run = ?"
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
        lines = [(batch.name, n, *key, batch.reserved[n]) for n, key in batch.keys.items()]
        with self.connection:
            self.connection.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?)", row)
            self.connection.executemany(
                "INSERT INTO batch_questions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", lines
            )

    def has_left(self, batch: Batch, remote: str) -> None:
        """Write down what the provider calls it."""
        batch.remote = remote
        with self.connection:
            self.connection.execute(
                "UPDATE batches SET remote = ? WHERE name = ?", (remote, batch.name)
            )

    def cost(self, batch: Batch, costs: Mapping[int, float], run: str) -> None:
        """Write down what questions of a batch did cost, so that it counts once, whoever fetches
        the results how often; what another run than `run` had reserved is given back to it."""
        changes = [(usd, batch.name, n) for n, usd in costs.items()]
        change = sum(usd - batch.reserved[n] for n, usd in costs.items())
        with self.connection:
            self.connection.executemany(COST, changes)
            if batch.run != run:
                self.connection.execute(OF_ANOTHER, (change, batch.run))
        batch.reserved |= costs

    def forget(self, batch: Batch) -> None:
        """Forget a batch that never left, that failed, or whose results are not there any more."""
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
                "SELECT number, judge, query, doc_a, doc_b, repeat, reserved FROM batch_questions "
                "WHERE batch = ?",
                (name,),
            ).fetchall()
            keys = {n: (judge, *texts) for n, judge, *texts, _ in lines}
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

    def taken(self, outcome: RequestOutcome, question: Question, context: RequestContext) -> bool:
        """Hand on the answer that an outcome holds; False where there is none."""
        ...


class BatchTroubleError(Exception):
    """What the provider said that ends the asking by batches; `passing` where it may pass, `gone`
    where what was asked for is not there."""

    def __init__(self, what: str, passing: bool = False, gone: bool = False) -> None:
        super().__init__(what)
        self.passing, self.gone = passing, gone


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

        trouble, passing, gone = "stopped", True, False
        for attempt in range(attempts):
            sent: dict[str, Any] = {"json": content} if content else {}
            if form:
                data = form()()
                # The account's own headers say that all is JSON.
                sent = {"data": data, "headers": {"Content-Type": data.headers["Content-Type"]}}
            if "/files" in path:  # which may be large: as long as something comes
                sent["timeout"] = aiohttp.ClientTimeout(
                    total=None, sock_read=self.wire.provider.timeout
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
                    if not passing:
                        break
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                trouble, passing = f"{type(error).__name__} {error}", True
            if attempt + 1 < attempts and await self.wire.context.sleep(0.2 * 2**attempt):
                break
        what = redact(f"{method} {path}: {trouble}", self.wire.key)
        raise BatchTroubleError(what, passing, gone)

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
                if trouble.passing and (found := await self.named(name, LOOKS)) is not None:
                    return found
                if (
                    not trouble.passing
                    or attempt + 1 == ATTEMPTS
                    or await self.wire.context.sleep(0.2 * 2**attempt)
                ):
                    raise trouble from None
        raise AssertionError  # the last attempt returns or raises

    async def named(self, name: str, looks: int) -> str | None:
        """What the provider calls the batch that has a name here; None where it has none, at so
        many looks: it may list a batch a moment after it was created."""
        for look in range(looks):
            if (found := await self._listed(name)) is not None:
                return found
            if look + 1 < looks and await self.wire.context.sleep(0.5 * 2**look):
                break
        return None

    async def _listed(self, name: str) -> str | None:
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
        since = time.monotonic()  # the provider last answered
        while (self.fresh or self.waiting) and not context.stopping:
            while self.fresh and not context.stopping and await self.submit():
                pass
            if self.fresh and not self.waiting:  # what is left of the budget is for a few
                self.one_by_one += self.fresh.values()
                self.fresh.clear()
            for batch in list(self.waiting):
                try:
                    state = await self.client.json("GET", f"/batches/{batch.remote}", attempts=1)
                except BatchTroubleError as trouble:
                    if trouble.gone:
                        raise self.lost(batch) from None
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
                remote = await self.client.named(batch.name, LOOKS)
                if remote is None:  # it never left
                    self.cost(batch, dict.fromkeys(batch.keys, 0.0), counted=False)
                    self.book.forget(batch)
                    continue
                self.book.has_left(batch, remote)
            self.wait_for(batch)
            self.context.spending.open += len(batch.keys) * (batch.run == self.context.run)
        if self.waiting:
            number = sum(len(batch.keys) for batch in self.waiting)
            say(f"  {self.name}: {number:,} questions were sent in batches before")
        flying = {key for batch in self.waiting for key in batch.keys.values()}
        self.again({key: q for key, q in self.known.items() if key not in flying})

    def again(self, questions: Mapping[Key, Question]) -> None:
        """Have questions sent, or asked one by one where they are few or were sent before."""
        few = len(questions) < self.client.wire.provider.batch_least
        for key, question in questions.items():
            if few or self.times[key] >= TIMES:
                self.one_by_one.append(question)
            else:
                self.fresh[key] = question

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

    def lost(self, batch: Batch) -> BatchTroubleError:
        """What to say of a batch that the provider does not know."""
        drop = f"DELETE FROM batches WHERE name = '{batch.name}'"
        return BatchTroubleError(
            f"batch {batch.remote} is not there: is it another account's? To ask its "
            f'{len(batch.keys):,} questions anew: sqlite3 {self.context.ledger} "{drop}"'
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
            body = self.session.body(question)
            request = {"custom_id": str(n), "method": "POST", "url": ENDPOINT, "body": body}
            line = json.dumps(request).encode()
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
            self.book.has_left(batch, await self.client.create(batch.name, lines))
        except BatchTroubleError:
            self.waiting.remove(batch)
            raise  # where it is not known whether it left, the next run looks for it
        for key in batch.keys.values():
            del self.fresh[key]
        say(f"  {self.name}: batch {batch.remote}: {len(batch.keys):,} questions")
        return True

    async def take(self, batch: Batch, state: Mapping[str, Any]) -> None:
        """Hand on the answers of a batch that is over, and have the rest asked again.

        The batch stays in the ledger until its answers are there: what is handed on here is written
        by another thread.
        """
        status = state.get("status")
        wire, context = self.client.wire, self.context
        try:
            results = dict(await self.client.results(state))
        except BatchTroubleError as trouble:
            if not trouble.gone:
                raise
            say(f"  ! {self.name}: the results of batch {batch.remote} are not there any more")
            self.cost(batch, dict(batch.reserved))
            self.book.forget(batch)
            self.again({k: self.known[k] for k in batch.keys.values() if k in self.known})
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
        if status == "cancelled" and left:
            raise BatchTroubleError(f"batch {batch.remote} was cancelled there")
        self.again(left)


async def answer_in_batches(
    session: AskedInBatches, questions: Sequence[Question], wire: Wire, context: RequestContext
) -> list[Question]:
    """Have the provider answer questions in batches, those that are under way among them, and hand
    on what comes; the questions that are to be asked one by one: few, or without an answer that can
    be read.

    `wire` has the price of a batch. Where the run is being stopped, batches stay under way. Raises
    `BatchTroubleError`.
    """
    known = {
        key_of(context.kept_under(q), ledger_question(q, session.depends_on_ids)): q
        for q in questions
    }
    with closing(BatchLedger(context.ledger, session.fingerprint)) as book:
        asked = BatchRound(session, BatchClient(wire), context, book, known)
        try:
            await asked.go()
        finally:
            asked.landed(asked.open)
    return asked.one_by_one


def outcome_of(result: Mapping[str, Any], wire: Wire) -> tuple[RequestOutcome | None, bool | None]:
    """What one request of a batch came to, and whether it was billed (None: not known); no outcome
    where it was not made."""
    response = result.get("response")
    if not isinstance(response, dict) or response.get("status_code") is None:
        return None, False
    return wire.outcome(int(response["status_code"]), response.get("body"))
