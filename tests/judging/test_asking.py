"""Real runs in processes of their own: stopped, killed, side by side, with judges that are down."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from tests.conftest import Cli
from tests.judging.endpoint import KINDS, running
from tests.judging.storm import collection, command, rows

from zelo.artifacts import read_json

QUERIES, DOCUMENTS = 4, 10
COMPARISONS = QUERIES * DOCUMENTS * 2
KEY = "sk-planted-0123456789abcdef"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collection(tmp_path_factory.mktemp("data") / "collection", QUERIES, DOCUMENTS)


def start(arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def until(ledger: Path, answers: int) -> None:
    """Wait for so many answers in the ledger."""
    end = time.monotonic() + 60
    while rows(ledger) < answers:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_ctrl_c_finishes_what_is_in_flight(zelo_command: str, data: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.sqlite"
    with running(latency=0.5) as endpoint:
        arguments = command(
            zelo_command, data, tmp_path, endpoint, "judge.judges.vllm.provider.in_flight=8"
        )
        run = start(arguments)
        until(ledger, 8)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
        assert run.returncode == 130, err
        assert "finishing 8 requests in flight; Ctrl-C again abandons it" in err
        assert "interrupted; the same command goes on where it stopped" in err
        assert "Traceback" not in out + err
        counts = endpoint.counts()
        assert rows(ledger) == len(counts["answered"]) == counts["requests"] < COMPARISONS
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert endpoint.counts()["requests"] == rows(ledger) == COMPARISONS


def test_a_second_ctrl_c_does_not_wait(zelo_command: str, data: Path, tmp_path: Path) -> None:
    with running(always="timeout", hang=30) as endpoint:
        run = start(
            command(zelo_command, data, tmp_path, endpoint, "judge.judges.vllm.provider.timeout=30")
        )
        while endpoint.counts()["requests"] == 0:
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert run.poll() is None
        run.send_signal(signal.SIGINT)
        start_of_wait = time.monotonic()
        _, err = run.communicate(timeout=20)
        assert time.monotonic() - start_of_wait < 10
    assert run.returncode == 130
    assert "Traceback" not in err


def test_a_kill_costs_nothing_that_was_received(
    zelo_command: str, data: Path, tmp_path: Path
) -> None:
    """Killed between two rounds of answers, a run asks for none of the first again."""
    ledger = tmp_path / "ledger.sqlite"
    provider = "judge.judges.vllm.provider"
    with running(latency=1.5) as endpoint:
        run = start(command(zelo_command, data, tmp_path, endpoint, f"{provider}.in_flight=8"))
        while len(endpoint.counts()["answered"]) < 8:
            time.sleep(0.02)
        time.sleep(0.6)  # the next eight are asked, and not answered yet
        run.kill()
        run.communicate()
        received = endpoint.counts()
        assert len(received["answered"]) == rows(ledger) == 8
        assert received["requests"] == 16
        again = command(
            zelo_command, data, tmp_path, endpoint, f"{provider}.in_flight={COMPARISONS}"
        )
        done = subprocess.run(again, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        counts = endpoint.counts()
    assert set(counts["answered"].values()) == {1}
    assert len(counts["answered"]) == rows(ledger) == COMPARISONS
    assert counts["requests"] == COMPARISONS + 8  # those that were in flight


def test_a_budget_outlives_kills(zelo_command: str, data: Path, tmp_path: Path) -> None:
    """What is in flight counts before it is sent, so that no kill makes room for more."""
    ledger = tmp_path / "ledger.sqlite"
    budget = 50
    with running(latency=0.3) as endpoint:
        few = "judge.judges.vllm.provider.in_flight=8"
        arguments = command(zelo_command, data, tmp_path, endpoint, few, f"budget.calls={budget}")
        for answers in (4, 12, 20):
            run = start(arguments)
            until(ledger, answers)
            run.kill()
            run.communicate()
            with sqlite3.connect(ledger) as connection:
                (spent,) = connection.execute("SELECT sum(calls) FROM spent").fetchone()
            assert endpoint.counts()["requests"] <= spent <= budget
        done = subprocess.run(arguments, capture_output=True, text=True)
        assert done.returncode == 2
        assert f"error: budget.calls={budget} would be passed: {budget} requests" in done.stderr
        assert endpoint.counts()["requests"] <= budget


def test_two_processes_share_a_ledger(zelo_command: str, data: Path, tmp_path: Path) -> None:
    """Two runs that rate the same answers in two ways ask for them once."""
    with running(latency=0.1) as endpoint:
        few = "judge.judges.vllm.provider.in_flight=8"
        ways = ("judge.vote=soft", "judge.vote=sign")
        both = [start(command(zelo_command, data, tmp_path, endpoint, few, way)) for way in ways]
        for run in both:
            _, err = run.communicate(timeout=120)
            assert run.returncode == 0, err
        assert endpoint.counts()["requests"] == rows(tmp_path / "ledger.sqlite") == COMPARISONS
    assert len(list((tmp_path / "store" / "judge").glob("*/"))) == 2


def test_a_run_goes_on_without_a_judge_that_is_down(
    zelo_command: str, data: Path, tmp_path: Path
) -> None:
    """What it should have said is missing, and the next run asks for that and rates anew."""
    with running(key=KEY) as endpoint:
        arguments = [
            *command(zelo_command, data, tmp_path, endpoint),
            "judge=[vllm,openai]",
            f"judge.judges.openai.provider.base_url={endpoint.base_url}",
            "judge.judges.vllm.provider.key_variable=GOOD_KEY",
            "judge.judges.openai.provider.requests_per_minute=null",
            "judge.judges.openai.provider.tokens_per_minute=null",
        ]
        arguments.remove("judge=vllm")
        arguments.remove("judge.vote=soft")
        first = start(arguments, GOOD_KEY=KEY, OPENAI_API_KEY="sk-wrong-0123456789")
        _, err = first.communicate(timeout=120)
        assert first.returncode == 0, err
        assert re.search(r"openai: given up: unauthorised \(401 Incorrect API key", err)
        assert "sk-wrong" not in err
        assert f"openai: {COMPARISONS} answers are missing; the next run asks for them" in err
        assert rows(tmp_path / "ledger.sqlite") == COMPARISONS
        asked = endpoint.counts()["requests"]
        second = start(arguments, GOOD_KEY=KEY, OPENAI_API_KEY=KEY)
        _, err = second.communicate(timeout=120)
        assert second.returncode == 0, err
        assert "missing" not in err
        assert endpoint.counts()["requests"] - asked == COMPARISONS
        third = start(arguments)  # neither key is needed any more
        assert third.wait(timeout=120) == 0
        assert endpoint.counts()["requests"] - asked == COMPARISONS
    records = [
        read_json(folder / "stage.json")["counts"]
        for folder in (tmp_path / "store" / "judge").glob("*/")
    ]
    assert sorted(record["missing"] for record in records) == [0, COMPARISONS]
    assert len(list((tmp_path / "store" / "rate").glob("*/"))) == 2


def test_all_judges_down_is_an_error_that_keeps_what_came(
    zelo_command: str, data: Path, tmp_path: Path
) -> None:
    with running(key=KEY) as endpoint:
        run = start(
            [
                *command(zelo_command, data, tmp_path, endpoint),
                "judge.judges.vllm.provider.key_variable=WRONG_KEY",
            ],
            WRONG_KEY="sk-wrong-0123456789",
        )
        _, err = run.communicate(timeout=60)
    assert run.returncode == 2
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "no judge can be asked (vllm: unauthorised (401 Incorrect API key provided" in line
    assert "the same command asks for the rest" in line
    assert "Traceback" not in err


def test_a_budget_stops_a_run_with_one_line(zelo_command: str, data: Path, tmp_path: Path) -> None:
    with running() as endpoint:
        arguments = command(zelo_command, data, tmp_path, endpoint, "budget.calls=30")
        for _ in range(2):  # the budget counts on
            run = start(arguments)
            _, err = run.communicate(timeout=60)
            assert run.returncode == 2
            assert "error: budget.calls=30 would be passed: 30 requests" in err
            assert endpoint.counts()["requests"] == 30
        run = start([*arguments[:-1], f"budget.calls={COMPARISONS}"])
        _, err = run.communicate(timeout=60)
        assert run.returncode == 0, err
        assert endpoint.counts()["requests"] == COMPARISONS


def test_a_key_is_nowhere_in_what_a_run_wrote(cli: Cli, tmp_path: Path, toy: list[str]) -> None:
    """A whole run against an endpoint that says the key back in errors and answers alike."""
    kinds = [kind for kind in KINDS if kind not in ("unauthorised", "rejected", "timeout")]
    provider = "judge.judges.openai.provider"
    with running(faults=0.5, kinds=",".join(kinds), retry_after=0.01, key=KEY) as endpoint:
        arguments = [
            "run",
            "experiment=quickstart",
            "judge=openai",
            "logger=wandb",
            f"{provider}.base_url={endpoint.base_url}",
            f"{provider}.requests_per_minute=null",
            f"{provider}.tokens_per_minute=null",
            f"{provider}.attempts=30",
            *toy,
        ]
        wrong = cli(*arguments, OPENAI_API_KEY=f"{KEY}-of-another")
        assert wrong.returncode == 2
        done = cli(*arguments, OPENAI_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    said = "".join([wrong.stdout, wrong.stderr, done.stdout, done.stderr])
    assert KEY not in said
    assert "Incorrect API key provided: Bearer ***" in wrong.stderr
    written = [path for path in (tmp_path / "work").rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written)
    assert any("ledger.sqlite" in path.name for path in written)
    for path in written:
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        assert KEY[:12].encode() not in content, path
    with sqlite3.connect(tmp_path / "work" / "outputs" / "ledger.sqlite") as ledger:
        failed = ledger.execute("SELECT reasons FROM answers WHERE status = 'refused'").fetchall()
    assert failed
    assert all("***" in reasons for (reasons,) in failed)  # it was said back, and taken out


def test_progress_says_how_fast_and_how_long(zelo_command: str, data: Path, tmp_path: Path) -> None:
    """In a terminal of 80 columns: answers, answers per second, time left, money, failures."""
    import pty

    with running(latency=0.15, faults=0.2, kinds="server_error") as endpoint:
        arguments = command(
            zelo_command,
            data,
            tmp_path,
            endpoint,
            "judge.judges.vllm.provider.in_flight=4",
            "judge.judges.vllm.price="
            "{_target_: zelo.judging.spending.Price, input: 100, output: 100}",
        )
        process, terminal = pty.fork()
        if process == 0:
            os.execv(arguments[0], arguments)
        shown = b""
        while True:
            try:
                shown += os.read(terminal, 65536)
            except OSError:
                break
        os.waitpid(process, 0)
        os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", shown.decode())
    bars = [part for part in re.split(r"[\r\n]", text) if "asking vllm" in part]
    assert bars
    assert max(map(len, bars)) < 80
    assert re.search(
        r"asking vllm: +\d+%\|.*\d+/80 "
        r"\[\d\d:\d\d<\d\d:\d\d, +[\d.]+/s, \$\d\.\d\d, server_error \d",
        " ".join(bars),
    )
