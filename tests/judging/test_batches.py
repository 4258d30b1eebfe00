"""Questions sent as batches, over real HTTP, with faults, expiry, stops and kills."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.judging.endpoint import Running, running
from tests.judging.test_api import ask, expected, judge, questions
from tests.judging.test_lists import judge as list_judge
from tests.judging.test_lists import places
from tests.judging.test_lists import question as block

from zelo.judging import prompt
from zelo.judging.anthropic_batches import as_message
from zelo.judging.api import TRIAL, ApiJudge, ApiSession
from zelo.judging.estimate import JudgeWorkload, TextLengths
from zelo.judging.ledger import Ledger
from zelo.judging.provider import Provider
from zelo.judging.spending import Price

BATCH = {"batch": True, "batch_least": 10, "batch_size": 40, "batch_poll": 0.05, "timeout": 5.0}


PROTOCOLS = pytest.mark.parametrize("protocol", ["openai", "anthropic"])


def in_batches(endpoint: Running, **more: Any) -> ApiSession:
    return judge(endpoint, provider=BATCH | more)


def under_way(folder: Path) -> int:
    """How many batches the ledger knows of."""
    with sqlite3.connect(folder / "ledger.sqlite") as connection:
        return int(connection.execute("SELECT count(*) FROM batches").fetchone()[0])


@PROTOCOLS
def test_questions_go_out_in_batches_at_half_the_price(tmp_path: Path, protocol: str) -> None:
    asked = questions(120)
    with running(batch_delay=0.2) as endpoint:
        found, spending = ask(in_batches(endpoint, batch_protocol=protocol), asked, tmp_path)
        again, _ = ask(in_batches(endpoint, batch_protocol=protocol), asked, tmp_path)
        counts = endpoint.counts()
    answers = found.answers["judge"]
    assert [answer.score for answer in answers if answer] == [expected(q) for q in asked]
    assert counts["requests"] == TRIAL  # which show that answers are of use
    assert counts["batches"] == 3  # of 40, 40 and 20
    assert set(counts["answered"].values()) == {1}
    assert spending.usd == pytest.approx(TRIAL * 0.0015 + (120 - TRIAL) * 0.00075)
    assert (spending.calls, spending.open) == (120, 0)
    assert (again.new_answers, again.answers) == (0, found.answers)


@PROTOCOLS
def test_what_fails_in_a_batch_is_asked_one_by_one(tmp_path: Path, protocol: str) -> None:
    asked = questions(140)
    with running(batch_errors=0.3, batch_expires=7, seed=2) as endpoint:
        found, spending = ask(in_batches(endpoint, batch_protocol=protocol), asked, tmp_path)
        counts = endpoint.counts()
    answers = [answer for answer in found.answers["judge"] if answer]
    assert len(answers) == 140
    refused = [answer for answer in answers if answer.status == "refused"]
    assert 1 < len(refused) < 40
    for question, answer in zip(asked, answers, strict=True):
        assert answer.score in (None, expected(question))
    assert "expired" in found.failed_attempts["judge"]
    assert counts["requests"] > TRIAL + 15
    assert set(counts["answered"].values()) == {1}
    assert spending.open == 0


@PROTOCOLS
def test_faults_about_a_batch_are_tried_again_and_none_is_made_twice(
    tmp_path: Path, protocol: str
) -> None:
    asked = questions(220)
    with running(batch_faults=0.2, batch_lost=0.4, seed=5) as endpoint:
        found, _ = ask(in_batches(endpoint, batch_protocol=protocol), asked, tmp_path)
        counts = endpoint.counts()
    assert [a.score for a in found.answers["judge"] if a] == [expected(q) for q in asked]
    assert set(counts["answered"].values()) == {1}
    assert counts["batches"] == 5


def test_a_provider_without_batches_is_given_up(tmp_path: Path) -> None:
    with running(batch_faults=1.0) as endpoint:
        found, _ = ask(in_batches(endpoint), questions(60), tmp_path)
    assert "POST /files: 503" in found.given_up["judge"]
    assert sum(answer is not None for answer in found.answers["judge"]) == TRIAL


@PROTOCOLS
def test_a_batch_that_fails_ends_the_asking_with_its_reason(tmp_path: Path, protocol: str) -> None:
    with running(batch_fails="invalid") as endpoint:
        found, spending = ask(
            in_batches(endpoint, batch_protocol=protocol), questions(60), tmp_path
        )
    assert "as invalid_request says" in found.given_up["judge"]
    assert (spending.open, spending.batched, under_way(tmp_path)) == (0, 0, 0)
    assert spending.usd == pytest.approx(TRIAL * 0.0015)  # nothing stays reserved


@PROTOCOLS
def test_a_full_queue_is_waited_for(tmp_path: Path, protocol: str) -> None:
    asked = questions(TRIAL + 120)
    with running(batch_fails="full") as endpoint:
        found, _ = ask(in_batches(endpoint, batch_protocol=protocol), asked, tmp_path)
        counts = endpoint.counts()
    assert [a.score for a in found.answers["judge"] if a] == [expected(q) for q in asked]
    assert protocol == "anthropic" or counts["batch_states"].count("failed") >= 2
    assert protocol == "openai" or counts["batches"] == 3
    assert counts["requests"] == TRIAL


@PROTOCOLS
@pytest.mark.parametrize(("gone", "requests"), [("batch", TRIAL), ("file", TRIAL + 40)])
def test_what_is_not_there_any_more_is_said(
    gone: str, requests: int, protocol: str, tmp_path: Path
) -> None:
    asked = questions(TRIAL + 40)
    with running(batch_gone=gone) as endpoint:
        found, spending = ask(in_batches(endpoint, batch_protocol=protocol), asked, tmp_path)
        counts = endpoint.counts()
    if gone == "batch":
        assert "DELETE FROM batches" in found.given_up["judge"]
        assert under_way(tmp_path) == 1
    else:  # sent twice, and then one by one
        assert all(found.answers["judge"])
        assert counts["batches"] == 2
    assert counts["requests"] == requests
    assert spending.open == 0


def test_results_that_are_no_messages_are_asked_again(tmp_path: Path) -> None:
    asked = questions(TRIAL + 40)
    with running(batch_odd=5) as endpoint:
        found, spending = ask(in_batches(endpoint, batch_protocol="anthropic"), asked, tmp_path)
        counts = endpoint.counts()
    assert [a.score for a in found.answers["judge"] if a] == [expected(q) for q in asked]
    assert counts["requests"] == TRIAL + 8
    assert spending.open == 0
    # What nobody knows the cost of counts at worst
    assert spending.usd > (TRIAL + 8) * 0.0015 + 32 * 0.00075


def test_two_judges_whose_batches_are_alike_find_their_own(tmp_path: Path) -> None:
    """Both lost the names of their batches, of one size and of one time."""
    asked = questions(TRIAL + 40)
    with running(batch_delay=1e6) as endpoint:
        session = in_batches(endpoint, batch_protocol="anthropic", batch_poll=30.0)
        other = judge(
            endpoint, model="n", provider=BATCH | {"batch_protocol": "anthropic", "batch_poll": 30}
        )
        slow, quick = zip(slow_and_quick(session), slow_and_quick(other), strict=True)
        names = ("one", "other")
        ask(dict(zip(names, slow, strict=True)), asked[:TRIAL], tmp_path)
        stop_soon(1.0)
        with pytest.raises(KeyboardInterrupt):
            ask(dict(zip(names, slow, strict=True)), asked, tmp_path)
        assert under_way(tmp_path) == 2
        with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
            at = [t for (t,) in connection.execute("SELECT time FROM batches ORDER BY time")]
            connection.execute("UPDATE batches SET remote = NULL, time = ?", (sum(at) - max(at),))
        endpoint.release()
        found, spending = ask(dict(zip(names, quick, strict=True)), asked, tmp_path)
        counts = endpoint.counts()
    for name in names:
        assert [a.score for a in found.answers[name] if a] == [expected(q) for q in asked]
    assert (counts["batches"], counts["billed_in_batches"]) == (2, 80)
    assert (spending.open, spending.batched) == (0, 0)


def test_two_judges_share_a_budget_without_waiting_for_ever(tmp_path: Path) -> None:
    with running(batch_delay=0.3, latency=0.02) as endpoint:
        both = {
            "batched": judge(endpoint, provider=BATCH),
            "live": judge(endpoint, model="n", provider={"timeout": 5.0}),
        }
        found, spending = ask(both, questions(150), tmp_path, usd=0.25)
        counts = endpoint.counts()
    assert spending.exhausted
    billed = counts["requests"] * 0.0015 + counts["billed_in_batches"] * 0.00075
    assert spending.usd == pytest.approx(billed)
    assert spending.usd <= 0.25
    assert any(found.answers["live"])


def test_what_failed_is_asked_again_in_a_batch_of_its_own(tmp_path: Path) -> None:
    asked = questions(100)
    with running(batch_errors=0.9, seed=1) as endpoint:
        first, _ = ask(in_batches(endpoint), asked, tmp_path)
    failed = [a for a in first.answers["judge"] if a and a.score is None]
    assert len(failed) > 10
    with running(batch_delay=0.1) as endpoint:
        again, _ = ask(in_batches(endpoint), asked, tmp_path, retry=1)
        counts = endpoint.counts()
    assert [a.score for a in again.answers["judge"] if a] == [expected(q) for q in asked]
    assert (counts["requests"], counts["batches"]) == (0, 1)
    assert counts["billed_in_batches"] == len(failed)


def test_results_that_are_fetched_twice_cost_once(tmp_path: Path) -> None:
    """The budget ends before what a batch left can be asked: the batch is looked at again."""
    asked = questions(TRIAL + 40)
    with running(batch_errors=0.5, seed=3) as endpoint:
        found, before = ask(in_batches(endpoint), asked, tmp_path, calls=TRIAL + 41)
        assert None in found.answers["judge"]
        assert under_way(tmp_path) == 1
        _, after = ask(in_batches(endpoint), asked, tmp_path, calls=TRIAL + 41)
    assert after.usd == before.usd


def test_the_budget_holds(tmp_path: Path) -> None:
    with running() as endpoint:
        found, spending = ask(in_batches(endpoint), questions(200), tmp_path, calls=75)
    assert spending.calls == 75
    assert spending.exhausted
    assert sum(answer is not None for answer in found.answers["judge"]) == 75


def test_blocks_are_ordered_in_batches_of_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels are drawn by a secret of the process, which goes with the batch."""
    asked = [block([3, 1, 2], n) for n in range(60)]
    with running(batch_delay=1.0) as endpoint:
        session = list_judge(endpoint)
        provider = session.judge.provider.model_copy(update=BATCH | {"batch_poll": 30.0})
        session.judge = session.judge.model_copy(update={"provider": provider})
        first, second = slow_and_quick(session)
        found, _ = ask(first, asked[:TRIAL], tmp_path)
        stop_soon(0.6)
        with pytest.raises(KeyboardInterrupt):
            ask(first, asked, tmp_path)
        assert under_way(tmp_path) == 1
        # As a kill leaves it just after the batch has left: what the provider calls it is not known
        with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
            connection.execute("UPDATE batches SET remote = NULL")
        monkeypatch.setattr(prompt, "SECRET", b"that of another process")
        found, spending = ask(second, asked, tmp_path)
        counts = endpoint.counts()
    assert places(found.answers["judge"]) == [[0, 2, 1]] * 60
    assert (counts["requests"], counts["batches"]) == (TRIAL, 1)
    assert spending.open == 0


def test_a_batch_of_another_program_is_not_taken_for_ours(tmp_path: Path) -> None:
    """Anthropic's batches carry no name: of two of one size on nobody's record the nearer in time
    is looked at first, here theirs, and then the other one."""
    asked = questions(TRIAL + 40)
    with running(batch_delay=1e6) as endpoint:
        session = in_batches(endpoint, batch_protocol="anthropic", batch_poll=30.0)
        first, second = slow_and_quick(session)
        ask(first, asked[:TRIAL], tmp_path)
        stop_soon(0.6)
        with pytest.raises(KeyboardInterrupt):
            ask(first, asked, tmp_path)
        theirs = [as_message(session.body(q)) for q in questions(40, 5000)]
        lines = [{"custom_id": f"theirs-{n}", "params": one} for n, one in enumerate(theirs)]
        headers = {"anthropic-version": "2023-06-01", "Content-Type": "application/json"}
        sent = json.dumps({"requests": lines}).encode()
        address = f"{endpoint.base_url}/messages/batches"
        urllib.request.urlopen(urllib.request.Request(address, sent, headers), timeout=60).close()
        with sqlite3.connect(tmp_path / "ledger.sqlite") as connection:
            connection.execute("UPDATE batches SET remote = NULL, time = time + 60")
        endpoint.release()
        found, spending = ask(second, asked, tmp_path)
        counts = endpoint.counts()
    assert [a.score for a in found.answers["judge"] if a] == [expected(q) for q in asked]
    assert counts["batches"] == 2
    assert counts["billed_in_batches"] == 80
    assert (spending.open, spending.batched) == (0, 0)
    assert spending.usd == pytest.approx(TRIAL * 0.0015 + 40 * 0.00075)


def at_provider(
    endpoint: Running, protocol: str, number: int, what: str = "", data: bytes | None = None
) -> urllib.request.Request:
    """A request about a batch that somebody else makes."""
    path = "messages/batches/msgbatch_" if protocol == "anthropic" else "batches/batch-"
    headers = {"anthropic-version": "2023-06-01"}
    return urllib.request.Request(f"{endpoint.base_url}/{path}{number}{what}", data, headers)


@PROTOCOLS
@pytest.mark.parametrize("over", [False, True])
def test_a_batch_is_cancelled_and_what_it_answered_is_kept(
    tmp_path: Path, protocol: str, over: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is over by then is fetched as it is."""
    asked = questions(100)
    with running(batch_delay=600.0) as endpoint:
        stopped, _ = slow_and_quick(in_batches(endpoint, batch_protocol=protocol, batch_poll=60.0))
        ask(stopped, asked[:TRIAL], tmp_path)
        stop_soon(0.6)
        with pytest.raises(KeyboardInterrupt):
            ask(stopped, asked, tmp_path)
        sent = endpoint.counts()["requests"]
        # Whoever asks for no batch buys nothing twice
        capsys.readouterr()
        ask(judge(endpoint), asked, tmp_path)
        assert "80 questions are under way in batches and not asked" in capsys.readouterr().err
        assert endpoint.counts()["requests"] == sent
        if over:
            endpoint.release()
            for number in (1, 2):
                urllib.request.urlopen(at_provider(endpoint, protocol, number)).close()
        else:  # somebody has begun to cancel one of them
            urllib.request.urlopen(at_provider(endpoint, protocol, 2, "/cancel", b"{}")).close()
            endpoint.release()
        cancelling = in_batches(endpoint, batch_protocol=protocol, batch_cancel=True)
        ended, spending = ask(cancelling, asked, tmp_path)
        counts = endpoint.counts()
        again, _ = ask(judge(endpoint), asked, tmp_path)
        assert endpoint.counts() == counts
    assert (again.given_up, again.answers) == ({}, ended.answers)
    answers = ended.answers["judge"]
    assert [answer.score for answer in answers if answer] == [expected(q) for q in asked]
    assert set(counts["answered"].values()) == {1}
    in_batch = 80 if over else 40
    assert counts["billed_in_batches"] == in_batch
    assert counts["requests"] == 100 - in_batch
    assert (spending.open, spending.batched) == (0, 0)
    assert spending.usd == pytest.approx((100 - in_batch) * 0.0015 + in_batch * 0.00075)


@PROTOCOLS
def test_a_batch_that_somebody_else_cancelled(tmp_path: Path, protocol: str) -> None:
    asked = questions(60)
    with running(batch_delay=600.0) as endpoint:
        stopped, quick = slow_and_quick(
            in_batches(endpoint, batch_protocol=protocol, batch_poll=60.0)
        )
        ask(stopped, asked[:TRIAL], tmp_path)
        stop_soon(0.6)
        with pytest.raises(KeyboardInterrupt):
            ask(stopped, asked, tmp_path)
        urllib.request.urlopen(at_provider(endpoint, protocol, 1, "/cancel", b"{}")).close()
        endpoint.release()
        found, _ = ask(quick, asked, tmp_path)
        said = found.given_up["judge"]
        assert re.search(r"was cancelled there.*provider\.batch_cancel=true", said)
        assert sum(answer is not None for answer in found.answers["judge"]) == TRIAL + 20
        last, _ = ask(in_batches(endpoint, batch_protocol=protocol, batch_cancel=True),
                      asked, tmp_path)  # fmt: skip
        counts = endpoint.counts()
    assert [answer.score for answer in last.answers["judge"] if answer] == [*map(expected, asked)]
    assert set(counts["answered"].values()) == {1}


def slow_and_quick(session: ApiSession) -> tuple[ApiSession, ApiSession]:
    """The same judge with a long and with a short time between two looks."""
    quick = session.judge.provider.model_copy(update={"batch_poll": 0.05})
    return session, replace(session, judge=session.judge.model_copy(update={"provider": quick}))


def stop_soon(seconds: float) -> None:
    """Ctrl-C after a while."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))


PROGRAM = """
import json, sys
from pathlib import Path
from tests.judging.test_api import ask, questions
from tests.judging.test_batches import BATCH, in_batches

class At:
    base_url = sys.argv[1]

session = in_batches(At(), batch_protocol=sys.argv[3])
found, spending = ask(session, questions(220), Path(sys.argv[2]))
scores = [answer and answer.score for answer in found.answers["judge"]]
print(json.dumps([scores, spending.usd, spending.open]))
"""


@pytest.mark.parametrize(
    ("kills", "protocol"),
    [
        (3, "openai"),
        pytest.param(10, "openai", marks=pytest.mark.slow),
        pytest.param(10, "anthropic", marks=pytest.mark.slow),
    ],
)
def test_kills_buy_nothing_twice(kills: int, protocol: str, tmp_path: Path) -> None:
    rng = random.Random(0)
    with running(batch_delay=1e6) as endpoint:
        command = [sys.executable, "-c", PROGRAM, endpoint.base_url, str(tmp_path), protocol]
        where = Path(__file__).parents[2]

        def start() -> subprocess.Popen[str]:
            pipe = subprocess.PIPE
            return subprocess.Popen(command, cwd=where, stdout=pipe, stderr=pipe, text=True)

        process = start()
        for n in range(kills):
            while process.poll() is None and not endpoint.counts()["requests"]:
                time.sleep(0.02)
            time.sleep(rng.uniform(0.0, 0.4) + (n > 0) * rng.uniform(0.5, 1.5))
            assert process.poll() is None
            process.kill()
            process.wait()
            process = start()
        endpoint.release()
        said, wrong = process.communicate(timeout=120)
        assert process.returncode == 0, wrong
        counts = endpoint.counts()
    scores, usd, still_open = json.loads(said.splitlines()[-1])
    assert scores == [expected(q) for q in questions(220)]
    # Nothing is bought twice in batches; only what was asked one by one, at a kill, may be.
    assert counts["billed_in_batches"] <= 220 - TRIAL
    assert counts["billed_in_batches"] + counts["requests"] >= 220
    assert usd >= counts["billed_in_batches"] * 0.00075 + TRIAL * 0.0015 - 1e-9
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.spent("run")[1] == pytest.approx(usd)
    assert still_open == 0
    with running() as other:  # with all answers in the ledger no batch is left, nothing is asked
        found, _ = ask(in_batches(other), questions(225), tmp_path)
        assert other.counts()["requests"] == 5
    assert under_way(tmp_path) == 0
    assert found.new_answers == 5


def test_the_plan_knows_of_half_the_price(tmp_path: Path) -> None:
    lengths = TextLengths(10.0, np.array([100.0]))
    work = JudgeWorkload((100, 100), 0.0, lengths, tmp_path / "none.sqlite", date(2026, 11, 27))
    usd = {}
    for batch in (False, True):
        provider = Provider(name="fake", base_url="http://127.0.0.1:1/v1", batch=batch)
        made = ApiJudge(provider=provider, model="m", price=Price(input=1.0, output=10.0))
        found = made.estimate("m", work).usd
        assert found is not None
        usd[batch] = found[0]
    assert usd[True] == pytest.approx(usd[False] / 2)
