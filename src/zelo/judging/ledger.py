"""The ledger: every answer that a judge ever gave, on disk before it is used.

One SQLite file in WAL mode, shared by runs and sweeps. A row is keyed by judge fingerprint, hashes
of the three texts in presented order, and repeat number; what was asked once is never asked again.
People alone may take an answer back.
"""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from zelo.errors import UserError
from zelo.judging.prompt import prompt_hash
from zelo.judging.question import Answer, Question

Key = tuple[str, bytes, bytes, bytes, int]

TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    judge TEXT NOT NULL,       -- fingerprint
    query BLOB NOT NULL,       -- first 16 bytes of the text's SHA-256, as are the next two
    doc_a BLOB NOT NULL,       -- shown first
    doc_b BLOB NOT NULL,
    repeat INTEGER NOT NULL,
    score REAL,                -- null where the judge failed
    status TEXT NOT NULL,
    reasons TEXT NOT NULL,
    tokens_in INTEGER NOT NULL,
    tokens_out INTEGER NOT NULL,
    usd REAL NOT NULL,
    time REAL NOT NULL,        -- seconds since 1970, when it was written
    PRIMARY KEY (judge, query, doc_a, doc_b, repeat)
) WITHOUT ROWID
"""
SPENT = """
CREATE TABLE IF NOT EXISTS spent (
    run TEXT PRIMARY KEY,      -- fingerprint
    calls INTEGER NOT NULL,    -- requests sent, repeated ones included
    usd REAL NOT NULL          -- with what requests in flight may cost at most
) WITHOUT ROWID
"""
FIND = """
SELECT score, status, reasons, tokens_in, tokens_out, usd FROM answers
WHERE judge = ? AND query = ? AND doc_a = ? AND doc_b = ? AND repeat = ?
"""
JUDGES = "SELECT DISTINCT judge FROM answers WHERE judge >= ? AND judge < ? ORDER BY judge"
COMPARED = "SELECT query, doc_a, doc_b FROM answers WHERE judge = ?"
WITHDRAW = """
DELETE FROM answers
WHERE judge = ? AND query = ? AND doc_a = ? AND doc_b = ? AND repeat = ?
"""
KEEP_SPENT = "INSERT OR REPLACE INTO spent VALUES (?, ?, ?)"
KEEP = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


INSTRUCTION = "instruction"  # begins what stands for a query under one
CHECKED = 2**27  # bytes of a ledger that is read through when it is opened
WAIT = 60  # seconds, at most, for another process that writes
PAGES = 200  # of 4 KiB that wait in the file beside the ledger, at most


def ledger_question(q: Question, depends_on_ids: bool, reads_instructions: bool = True) -> Question:
    """The question as the ledger knows it: by its texts and, where the judge's answer depends on
    them, by its ids.

    One about two queries is known by both of their texts, and by the prompt for such. A query under
    an instruction is another one than without it, to a judge who reads instructions.
    """
    if q.instruction or q.instruction_b:
        if reads_instructions:
            query, query_b = (
                joined(INSTRUCTION, prompt_hash("instruction"), told, text) if told else text
                for told, text in ((q.instruction, q.query), (q.instruction_b, q.query_b_text))
            )
            q = replace(q, query=query, query_b_text=query_b)
        q = replace(q, instruction="", instruction_b="")
    if q.query_b is None and not depends_on_ids:
        return q
    query = q.query
    if q.query_b is not None:
        query = joined(prompt_hash("cross"), query, q.query_b_text)
    if not depends_on_ids:
        return replace(q, query=query)
    a, b = joined(q.doc_a, q.text_a), joined(q.doc_b, q.text_b)
    if q.query_b is None:
        return replace(q, query=joined(q.query_id, query), text_a=a, text_b=b)
    # `query` is joined already
    return replace(q, query=f"{joined(q.query_id, q.query_b)}\0{query}", text_a=a, text_b=b)


def joined(*parts: str) -> str:
    """Parts as one text that no other parts give: what separates them is escaped in them."""
    return "\0".join(part.replace("\1", "\1\1").replace("\0", "\1\2") for part in parts)


def damaged(path: Path, what: object) -> str:
    """What to do about a ledger that cannot be read."""
    return (
        f"{path}: the ledger is damaged ({' '.join(str(what).split())}); keep the file, and get "
        f"out of it what can be got: sqlite3 {path} .recover | sqlite3 NEW"
    )


def use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Set WAL mode, waiting at most `WAIT` seconds for others that open the same file.

    SQLite's own timeout does not hold for this change: it fails at once where two processes open
    a new file together.
    """
    deadline = time.monotonic() + WAIT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class Ledger:
    """A durable map from questions to answers; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hashes: dict[str, bytes] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new = not path.exists() or not path.stat().st_size
            self._connection = sqlite3.connect(path, timeout=WAIT)
            use_write_ahead_log(self._connection)
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(f"PRAGMA wal_autocheckpoint = {PAGES}")
            self._connection.execute(TABLE)
            self._connection.execute(SPENT)
            self._connection.commit()
            wrong = None
            if not new and path.stat().st_size < CHECKED:
                wrong = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"{path}: the ledger cannot be opened ({error})") from None
        if wrong and wrong[0] != "ok":
            self._connection.close()
            raise UserError(damaged(path, wrong[0]))

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def find(self, fingerprint: str, questions: Sequence[Question]) -> list[Answer | None]:
        """The answer that a judge gave to each `ledger_question`, or None."""
        some = "SELECT 1 FROM answers WHERE judge = ? LIMIT 1"
        if self._row(some, (fingerprint,)) is None:
            return [None] * len(questions)
        found: list[Answer | None] = []
        for question in questions:
            row = self._row(FIND, self._key(fingerprint, question))
            found.append(Answer(*row) if row else None)
        return found

    def keep(
        self,
        rows: Sequence[tuple[str, Question, Answer]],
        spent: tuple[str, int, float] | None = None,
    ) -> None:
        """Write answers (judge's fingerprint, `ledger_question`, answer) in one transaction.

        On return they are on disk.

        `spent` is what a run has spent so far: its fingerprint, requests and USD.
        """
        now = time.time()
        written = [
            (
                *self._key(fingerprint, q),
                a.score,
                a.status,
                a.reasons,
                a.tokens_in,
                a.tokens_out,
                a.usd,
                now,
            )
            for fingerprint, q, a in rows
        ]
        try:
            with self._connection:
                self._connection.executemany(KEEP, written)
                if spent is not None:
                    self._connection.execute(KEEP_SPENT, spent)
        except sqlite3.Error as error:
            raise UserError(
                f"{self.path}: {len(rows)} answers could not be written ({error}); those before "
                f"them are kept"
            ) from None

    def withdraw(self, fingerprint: str, question: Question) -> None:
        """Take back the answer of a person to a `ledger_question`, who then may give another."""
        try:
            with self._connection:
                self._connection.execute(WITHDRAW, self._key(fingerprint, question))
        except sqlite3.Error as error:
            raise UserError(f"{self.path}: an answer could not be taken back ({error})") from None

    def spent(self, run: str) -> tuple[int, float]:
        """Requests and USD that a run spent so far, whatever ended it."""
        row = self._row("SELECT calls, usd FROM spent WHERE run = ?", (run,))
        return (row[0], row[1]) if row else (0, 0.0)

    def has_usable(self, fingerprint: str) -> bool:
        """Whether a judge ever gave an answer that is no failure."""
        some = "SELECT 1 FROM answers WHERE judge = ? AND score IS NOT NULL LIMIT 1"
        return self._row(some, (fingerprint,)) is not None

    def judges(self, prefix: str) -> list[str]:
        """Fingerprints that begin so, in order."""
        beyond = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        try:
            return [row[0] for row in self._connection.execute(JUDGES, (prefix, beyond))]
        except sqlite3.Error as error:
            raise UserError(damaged(self.path, error)) from None

    def compared(self, fingerprint: str) -> Iterator[tuple[bytes, bytes, bytes]]:
        """What a judge has compared: query and both documents, each by its `hash_of`."""
        try:
            yield from self._connection.execute(COMPARED, (fingerprint,))
        except sqlite3.Error as error:
            raise UserError(damaged(self.path, error)) from None

    def count_answers(self, fingerprint: str, most: int) -> int:
        """How many answers of a judge there are, counted up to `most`."""
        some = "SELECT count(*) FROM (SELECT 1 FROM answers WHERE judge = ? LIMIT ?)"
        return int(self._row(some, (fingerprint, most))[0])

    def mean_tokens(self, fingerprint: str) -> tuple[int, float, float]:
        """Answers of a judge whose tokens are known, and their mean tokens read and written."""
        row = self._row(
            "SELECT count(*), avg(tokens_in), avg(tokens_out) FROM answers "
            "WHERE judge = ? AND tokens_in > 0",
            (fingerprint,),
        )
        return row[0], row[1] or 0.0, row[2] or 0.0

    def _row(self, query: str, values: Sequence[object]) -> Any:
        """The first row that a query finds; `UserError` where the file is damaged."""
        try:
            return self._connection.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise UserError(damaged(self.path, error)) from None

    def free(self) -> int:
        """Bytes that are left where the ledger lies."""
        return shutil.disk_usage(self.path.parent).free

    def _key(self, fingerprint: str, q: Question) -> Key:
        return key_of(fingerprint, q, self._hash)

    def _hash(self, text: str) -> bytes:
        if text not in self._hashes:
            self._hashes[text] = hash_of(text)
        return self._hashes[text]


def hash_of(text: str) -> bytes:
    """What stands for a text in a key."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]


def key_of(fingerprint: str, q: Question, hashed: Callable[[str], bytes] = hash_of) -> Key:
    """The key of the answer to a `ledger_question`."""
    return (fingerprint, hashed(q.query), hashed(q.text_a), hashed(q.text_b), q.repeat)
