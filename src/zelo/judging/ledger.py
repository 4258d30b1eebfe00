"""The ledger: every answer that a judge ever gave, on disk before it is used.

One SQLite file in WAL mode, shared by runs and sweeps. A row is keyed by judge fingerprint, hashes
of the three texts in presented order, and repeat number; what was asked once is never asked again.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from zelo.errors import UserError
from zelo.judging.protocol import Answer, Question

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
KEEP_SPENT = "INSERT OR REPLACE INTO spent VALUES (?, ?, ?)"
KEEP = "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Ledger:
    """A durable map from questions to answers; a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._hashes: dict[str, bytes] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(TABLE)
            self._connection.execute(SPENT)
            self._connection.commit()
        except (sqlite3.Error, OSError) as error:
            raise UserError(f"{path}: the ledger cannot be opened ({error})") from None

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def find(self, judge: str, questions: Sequence[Question]) -> list[Answer | None]:
        """The answer kept for each question, or None."""
        some = "SELECT 1 FROM answers WHERE judge = ? LIMIT 1"
        if self._connection.execute(some, (judge,)).fetchone() is None:
            return [None] * len(questions)
        found: list[Answer | None] = []
        for question in questions:
            row = self._connection.execute(FIND, self._key(judge, question)).fetchone()
            found.append(Answer(*row) if row else None)
        return found

    def keep(
        self,
        rows: Sequence[tuple[str, Question, Answer]],
        spent: tuple[str, int, float] | None = None,
    ) -> None:
        """Write answers (judge, question, answer) in one transaction; on return they are on disk.

        `spent` is what a run has spent so far: its fingerprint, requests and USD.
        """
        now = time.time()
        written = [
            (
                *self._key(judge, q),
                a.score,
                a.status,
                a.reasons,
                a.tokens_in,
                a.tokens_out,
                a.usd,
                now,
            )
            for judge, q, a in rows
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

    def spent(self, run: str) -> tuple[int, float]:
        """Requests and USD that a run spent so far, whatever ended it."""
        row = self._connection.execute(
            "SELECT calls, usd FROM spent WHERE run = ?", (run,)
        ).fetchone()
        return (row[0], row[1]) if row else (0, 0.0)

    def mean_tokens(self, judge: str) -> tuple[int, float, float]:
        """Answers of a judge whose tokens are known, and their mean tokens read and written."""
        row = self._connection.execute(
            "SELECT count(*), avg(tokens_in), avg(tokens_out) FROM answers "
            "WHERE judge = ? AND tokens_in > 0",
            (judge,),
        ).fetchone()
        return row[0], row[1] or 0.0, row[2] or 0.0

    def _key(self, judge: str, q: Question) -> Key:
        return (judge, self._hash(q.query), self._hash(q.text_a), self._hash(q.text_b), q.repeat)

    def _hash(self, text: str) -> bytes:
        if text not in self._hashes:
            self._hashes[text] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
        return self._hashes[text]
