"""Whole runs against an endpoint that goes wrong, some of them killed on the way."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import INSTALLED, write_beir
from tests.judging.endpoint import Running, running

from zelo.artifacts import read_table

DEGREE = 4
UNDER_WAY = 1.0  # seconds that an answer may take from the endpoint into the ledger


@dataclass(frozen=True)
class Storm:
    """What a run came to."""

    seconds: float
    kills: int
    requests: int
    faults: Counter[str]
    questions: int  # that the endpoint answered, each in full
    answered_twice: int  # of these: a kill came between the reply and the ledger
    in_ledger: int
    failed: Counter[str]
    calls_counted: int  # by the run itself, in the ledger
    judgments: list[tuple[str, str, str, float | None, str]] = field(repr=False)
    elos: list[tuple[str, str, float]] = field(repr=False)


def collection(folder: Path, queries: int, documents: int) -> Path:
    """Queries with `documents` candidates each that no other query finds; all texts differ."""
    worth = random.Random(0)
    return write_beir(
        folder,
        {
            f"d{q}-{d}": f"subject{q} worth={worth.uniform(0, 4):.5f}"
            for q in range(queries)
            for d in range(documents)
        },
        {f"q{q}": f"subject{q}" for q in range(queries)},
        {"train": [(f"q{q}", f"d{q}-0", 1) for q in range(queries)]},
    )


def command(zelo: str, data: Path, home: Path, endpoint: Running, *more: str) -> list[str]:
    """`zelo run` up to the ratings, with the endpoint as the judge."""
    provider = "judge.judges.vllm.provider"
    return [
        zelo,
        "run",
        "stages=[load,retrieve,compare,judge,rate]",
        "data=beir",
        f"data.path={data}",
        "retriever=bm25",
        "sampler=regular",
        f"sampler.degree={DEGREE}",
        "judge=vllm",
        "judge.vote=soft",
        f"{provider}.base_url={endpoint.base_url}",
        f"{provider}.timeout=2",
        f"{provider}.attempts=20",
        f"home={home}",
        *more,
    ]


def storm(
    folder: Path,
    data: Path,
    comparisons: int,
    kills: int = 0,
    seed: int = 0,
    words: Sequence[str] = (),
    **endpoint: object,
) -> Storm:
    """Run until it ends by itself; `kills` times it is killed when a random share is answered."""
    chance = random.Random(seed)
    home = folder / "home"
    folder.mkdir(exist_ok=True)
    start = time.monotonic()
    killed = []
    with running(retry_after=0.05, hang=3, **endpoint) as server:
        run = command(INSTALLED, data, home, server, *words)
        for share in sorted(chance.random() for _ in range(kills)):
            with (folder / "log").open("w") as log:
                process = subprocess.Popen(run, stdout=log, stderr=log)
                while rows(home / "ledger.sqlite") < share * comparisons and process.poll() is None:
                    time.sleep(0.01)
                assert process.poll() is None, (folder / "log").read_text()
                killed.append(time.time())
                process.kill()
                process.wait()
        done = subprocess.run(run, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        before = server.counts()
        again = subprocess.run(run, capture_output=True, text=True)
        assert again.returncode == 0, again.stderr
        counts = server.counts()
        assert counts["requests"] == before["requests"], "something was asked again"
    for question, at in counts["answered_at"].items():
        # Asked again is only what had just been answered when a kill came.
        lost = all(abs(kill - at[0]) > UNDER_WAY for kill in killed)
        assert len(at) == 1 or not lost, f"{question}: answered at {at}, kills at {killed}"
    store = home / "store"
    judged = read_table(next((store / "judge").glob("*/")), "judgments").to_pylist()
    rated = read_table(next((store / "rate").glob("*/")), "ratings").to_pylist()
    with sqlite3.connect(home / "ledger.sqlite") as ledger:
        statuses = Counter(status for (status,) in ledger.execute("SELECT status FROM answers"))
        (calls,) = ledger.execute("SELECT sum(calls) FROM spent").fetchone()
    names = ("query_id", "doc_a", "doc_b", "score", "status")
    return Storm(
        seconds=time.monotonic() - start,
        kills=kills,
        requests=counts["requests"],
        faults=Counter(counts["faults"]),
        questions=len(counts["answered"]),
        answered_twice=sum(n - 1 for n in counts["answered"].values()),
        in_ledger=statuses.total(),
        failed=Counter({kind: n for kind, n in statuses.items() if kind != "answered"}),
        calls_counted=calls,
        judgments=sorted(tuple(row[name] for name in names) for row in judged),
        elos=sorted((row["query_id"], row["doc_id"], row["elo"]) for row in rated),
    )


def rows(ledger: Path) -> int:
    """Answers in a ledger that another process writes."""
    try:
        with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])
    except sqlite3.Error:  # not there yet
        return 0
