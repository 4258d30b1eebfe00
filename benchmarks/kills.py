"""Is every command the same after `kill -9` at twenty random moments?

    python benchmarks/kills.py                   every command; about a quarter of an hour
    python benchmarks/kills.py "zelo rate"       one of them

Each command is run undisturbed. Then, twenty times, it is started in a folder that is as it was
then, killed with SIGKILL at a moment drawn at random from the time that it took, and run again to
its end. The script ends with an error unless, each time,

- every file that it left has the content of the undisturbed one (but for those that tell times),
- no temporary and no unfinished file is left,
- the endpoint that its judges ask was asked again for nothing but what was in flight at the kill,
  or had come and was being written (32 answers at most, of 16 in flight).

Commands are forked from one process that has imported what they import, as the tests do it: killed
moments are those of work, not of imports.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from machine import save
from tests.conftest import TOPICS, write_model, write_topics
from tests.data.test_zbench import annotation
from tests.judging.endpoint import Running, running

KILLS = 20
IN_FLIGHT = 16  # requests at once, of judge=openai
# Files that tell times, or are kept only so that two processes do not work on the same thing
TIMED = ("manifest.json", "stage.json", "report.html", "README.md", "evaluation.json")
APART = (".lock", "-wal", "-shm", ".pdf", ".cache", ".arrow")

Make = Callable[[Path], None]


@dataclass(frozen=True)
class Command:
    """A command, what has to be there before it, and whether its judges are asked."""

    words: list[str]
    before: Make
    asks: bool = False
    prints: bool = False  # whether what it prints is what it is for

    @property
    def name(self) -> str:
        """Its first words."""
        return "zelo " + " ".join(self.words[:2] if self.words[0] == "data" else self.words[:1])


@dataclass
class Outcome:
    """What a command left."""

    files: dict[str, str] = field(default_factory=dict)
    printed: str = ""


class Zygote:
    """A warm process that commands are forked from."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.process = subprocess.Popen([sys.executable, "-m", "tests.zygote", str(place)])
        while not place.exists():
            time.sleep(0.1)

    def run(self, words: list[str], folder: Path, kill_after: float | None = None) -> int:
        """Run a command in a folder; its exit status, negative where it was killed."""
        with (
            socket.socket(socket.AF_UNIX) as connection,
            (folder.parent / "stdout").open("w") as out,
            (folder.parent / "stderr").open("w") as err,
        ):
            connection.connect(str(self.place))
            request = json.dumps({"words": words, "folder": str(folder)}).encode()
            socket.send_fds(connection, [request], [out.fileno(), err.fileno()])
            lines = connection.makefile()
            pid = int(lines.readline())
            if kill_after is not None:
                time.sleep(kill_after)
                with contextlib.suppress(ProcessLookupError):  # it had ended
                    os.kill(pid, signal.SIGKILL)
            return int(lines.readline())


def main() -> None:
    chosen = sys.argv[1:]
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as name, running(words=True, latency=0.05) as endpoint:
        os.environ |= {"OPENAI_API_KEY": "sk-k", "OPENAI_BASE_URL": endpoint.base_url}
        place = Path(name)
        zygote = Zygote(place / "socket")
        try:
            rows = [
                storm(command, zygote, endpoint, place, chance)
                for command in commands(place, zygote)
                if not chosen or command.name in chosen
            ]
        finally:
            zygote.process.terminate()
    if not chosen:
        save("kills.csv", rows)


def commands(place: Path, zygote: Zygote) -> list[Command]:
    """Every command, on small inputs."""
    made = place / "made"
    made.mkdir()
    model, topics = write_model(made), write_topics(made / "topics")
    annotation(made / "zbench")
    log = [
        {"query": f"history of {topic}", "results": results}
        for topic in TOPICS
        for results in [[{"id": f"{topic}{n}", "text": f"{topic} {n} history"} for n in range(6)]]
    ]
    (made / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    draw = random.Random(1)
    pairs = [
        {"query_id": f"q{q}", "doc_a": f"d{a}", "doc_b": f"d{b}", "p": round(draw.random(), 3)}
        for q in range(2_000)
        for a in range(12)
        for b in range(a)
    ]
    (made / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    (made / "lines.txt").write_text("".join(f"line {n} about apples\n" for n in range(200)))

    def nothing(folder: Path) -> None:
        pass

    def with_files(folder: Path) -> None:
        shutil.copy(made / "pairs.jsonl", folder)
        shutil.copy(made / "log.jsonl", folder)

    beir = ["data=beir", f"data.path={topics}", f"pretrained.path={model}", "top_k=10", "depth=8"]
    provider = "judge.judges.openai.provider"
    fast = [f"{provider}.requests_per_minute=null", f"{provider}.tokens_per_minute=null"]
    asks = ["judge=openai", "judge.judges.openai.price={input: 1, output: 1}", *fast]
    training = ["training.batch_size=1", "training.max_epochs=4",
                "training.checkpoint_minutes=0.0001",
                "training.frozen_layers=0", "evaluation.resamples=500"]  # fmt: skip
    into = "hydra.run.dir=outputs/runs/a"
    run = Command(["run", *beir, *asks, "budget.usd=5", *training, into], nothing, asks=True)
    distilled = ["distil=on", "judge=graded", "distil.training.batch_size=2"]
    elo = ["truth=elo", "truth.sampler.cycles=2", "evaluation.split=all", "reranker=[embedding]"]
    fresh(run, made / "work")
    assert zygote.run(run.words, made / "work") == 0, (made / "stderr").read_text()

    def with_run(folder: Path) -> None:
        shutil.copytree(made / "work", folder, dirs_exist_ok=True)

    of_run = "outputs/runs/a"
    return [
        run,
        Command(["run", *beir, *distilled, *training, into], nothing),
        Command(["evaluate", *beir[:-1], *elo, *asks, "out=found"], nothing, asks=True),
        Command(["audit", "log.jsonl", *asks, "out=found"], with_files, asks=True),
        Command(["rate", "pairs.jsonl"], with_files),
        Command(["import", str(made / "zbench"), "out=imported"], nothing),
        Command(["export", of_run, "out=exported"], with_run),
        Command(["compare", f"{of_run}/runs/zelo.trec", f"{of_run}/runs/bm25.trec",
                 f"qrels={topics}/qrels/test.tsv", "plot=a.png"], with_run, prints=True),
        Command(["inspect", of_run, "--query", "q-apples-history"], with_run, prints=True),
        Command(["rerank", "--model", f"{of_run}/model", "--query", "x", str(made / "lines.txt")],
                with_run, prints=True),
        Command(["plan", *beir, *asks], nothing, prints=True),
        Command(["data", "describe", *beir[:2]], nothing, prints=True),
    ]  # fmt: skip


def storm(
    command: Command, zygote: Zygote, endpoint: Running, place: Path, chance: random.Random
) -> dict[str, object]:
    """Kill a command twenty times; what happened."""
    folder = place / "work"
    calm, seconds = once(command, zygote, folder)
    done, twice = 0, 0
    for _ in range(KILLS):
        fresh(command, folder)
        before = total(endpoint)
        status = zygote.run(command.words, folder, chance.uniform(0, seconds))
        done += status >= 0  # it had ended before
        assert status in (0, -signal.SIGKILL), (place / "stderr").read_text()
        status = zygote.run(command.words, folder)
        assert status == 0, f"{command.name}: {(place / 'stderr').read_text()}"
        found = outcome(command, folder)
        assert found == calm, f"{command.name}: {difference(calm, found)}"
        if command.asks:
            again = total(endpoint) - before - answers(folder)
            assert 0 <= again <= 2 * IN_FLIGHT, f"{command.name}: {again} questions asked again"
            twice += again
    row = {
        "command": command.name,
        "seconds": round(seconds, 2),
        "kills": KILLS,
        "ended_before_the_kill": done,
        "files": len(calm.files),
        "answers": answers(folder) if command.asks else "",
        "answered_twice": twice if command.asks else "",
    }
    print(row, flush=True)
    return row


def fresh(command: Command, folder: Path) -> None:
    """The folder as it is before the command."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    command.before(folder)


def once(command: Command, zygote: Zygote, folder: Path) -> tuple[Outcome, float]:
    """What an undisturbed run leaves, and how long it takes; the first of two warms caches."""
    for _ in range(2):
        fresh(command, folder)
        start = time.monotonic()
        status = zygote.run(command.words, folder)
        seconds = time.monotonic() - start
        assert status == 0, f"{command.name}: {(folder.parent / 'stderr').read_text()}"
    return outcome(command, folder), seconds


def outcome(command: Command, folder: Path) -> Outcome:
    """Content of all files that tell no times, and what was printed where that is the result."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or path.name.endswith(APART) or "/logs/" in name:
            assert not path.name.endswith(".partial"), f"unfinished: {name}"
            continue
        assert ".tmp" not in path.name, f"left over: {name}"
        if path.name == "ledger.sqlite":
            files[name] = digest(json.dumps(ledger(path)).encode())
        else:
            files[name] = "" if path.name in TIMED else digest(path.read_bytes())
    printed = (folder.parent / "stdout").read_text() if command.prints else ""
    return Outcome(files, printed)


def digest(content: bytes) -> str:
    """A short name for some content."""
    return hashlib.sha256(content).hexdigest()[:16]


def ledger(path: Path) -> list[tuple[object, ...]]:
    """Keys and scores of all answers."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute(
            "SELECT judge, hex(query), hex(doc_a), hex(doc_b), repeat, score, status FROM answers "
            "ORDER BY 1, 2, 3, 4, 5"
        ).fetchall()


def answers(folder: Path) -> int:
    """Answers in the ledgers below a folder."""
    return sum(len(ledger(path)) for path in folder.rglob("ledger.sqlite"))


def total(endpoint: Running) -> int:
    """Answers that the endpoint has given."""
    return sum(endpoint.counts()["answered"].values())


def difference(calm: Outcome, found: Outcome) -> str:
    """Which files differ."""
    names = {*calm.files, *found.files}
    return (
        ", ".join(sorted(n for n in names if calm.files.get(n) != found.files.get(n)))
        or "what was printed"
    )


if __name__ == "__main__":
    main()
