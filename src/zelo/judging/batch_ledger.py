"""Which batches of questions are under way, in the file of the ledger."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zelo.judging.ledger import WAIT, Key

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
    time: float = field(default_factory=time.time)  # seconds since 1970, when it was made up


class BatchLedger:
    """Which batches of one judge are under way, in the file of the ledger."""

    def __init__(self, path: Path, judge: str) -> None:
        self.judge = judge
        self.connection = sqlite3.connect(path, timeout=WAIT)
        self.connection.execute("PRAGMA synchronous = FULL")
        self.connection.executescript(TABLES)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def keep(self, batch: Batch) -> None:
        """Write a batch down, before it leaves."""
        row = (batch.name, self.judge, batch.remote, batch.secret, batch.run, batch.time)
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
            "SELECT name, remote, secret, run, time FROM batches WHERE judge = ? ORDER BY time",
            (self.judge,),
        ).fetchall()
        found = []
        for name, remote, secret, run, at in rows:
            lines = self.connection.execute(
                "SELECT number, judge, query, doc_a, doc_b, repeat, reserved FROM batch_questions "
                "WHERE batch = ?",
                (name,),
            ).fetchall()
            keys = {n: (judge, *texts) for n, judge, *texts, _ in lines}
            reserved = {n: usd for n, *_, usd in lines}
            found.append(Batch(name, remote, secret, run, keys, reserved, at))
        return found

    def remotes(self) -> set[str]:
        """What providers call the batches on record, those of other judges too."""
        rows = self.connection.execute("SELECT remote FROM batches WHERE remote IS NOT NULL")
        return {remote for (remote,) in rows}
