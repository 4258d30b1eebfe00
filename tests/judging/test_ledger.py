from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from zelo.errors import UserError
from zelo.judging.ledger import Ledger
from zelo.judging.question import FAILED, Answer, Question

QUESTIONS = [
    Question("q", str(i), "b", r, "what", f"text {i}", "other") for i in range(3) for r in (0, 1)
]


def test_answers_are_found_by_judge_texts_order_and_repeat(tmp_path: Path) -> None:
    answers = [Answer(i / 10, "answered", "because é", 10, 20, 0.001) for i in range(5)] + [
        Answer(None, FAILED)
    ]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.keep([("judge", q, a) for q, a in zip(QUESTIONS, answers, strict=True)])
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.find("judge", QUESTIONS) == answers
        assert ledger.find("another", QUESTIONS) == [None] * 6
        q = QUESTIONS[0]
        turned = Question("q", q.doc_b, q.doc_a, 0, q.query, q.text_b, q.text_a)
        assert ledger.find("judge", [turned]) == [None]
        # Ids do not count: the same texts in another collection are the same question.
        renamed = Question("q'", "x", "y", 0, q.query, q.text_a, q.text_b)
        assert ledger.find("judge", [renamed]) == [answers[0]]


def test_what_a_run_spent_is_known_after_it_ended(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.spent("run") == (0, 0.0)
        ledger.keep([], ("run", 3, 0.5))
        ledger.keep([("judge", QUESTIONS[0], Answer(0.5))], ("run", 4, 0.75))
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.spent("run") == (4, 0.75)
        assert ledger.spent("another") == (0, 0.0)


def test_the_first_answer_stays(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.keep([("judge", QUESTIONS[0], Answer(0.5))])
        ledger.keep([("judge", QUESTIONS[0], Answer(-0.5))])
        assert ledger.find("judge", QUESTIONS[:1]) == [Answer(0.5)]


WRITER = """
import sys
from pathlib import Path
from zelo.judging.ledger import Ledger
from zelo.judging.question import Answer, Question
with Ledger(Path(sys.argv[1])) as ledger:
    for n in range(10**6):
        ledger.keep([("judge", Question("q", str(n), "b", 0, "q", f"t{n}", "o"), Answer(0.25))])
        print(n, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(50):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    acknowledged = 50 + len(process.stdout.read().split("\n")) - 1
    process.wait()
    questions = [Question("q", str(n), "b", 0, "q", f"t{n}", "o") for n in range(acknowledged)]
    with Ledger(path) as ledger:
        assert None not in ledger.find("judge", questions)


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    code = WRITER.replace("10**6", "100").replace('f"t{n}"', 'f"t{n}-{sys.argv[2]}"')
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(i)], stdout=subprocess.DEVNULL)
        for i in range(3)
    ]
    deadline = time.monotonic() + 120
    assert [p.wait(timeout=deadline - time.monotonic()) for p in processes] == [0, 0, 0]
    assert sqlite3.connect(path).execute("SELECT count(*) FROM answers").fetchone() == (300,)


def test_a_new_ledger_is_opened_by_several_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(4, timeout=60)

    def open_all(_: int) -> None:
        for n in range(50):
            together.wait()
            with Ledger(tmp_path / f"{n}.sqlite"):
                pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(open_all, range(4)))


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_text("not a database, but long enough to be looked at" * 10)
    with pytest.raises(UserError, match=r"ledger\.sqlite: the ledger cannot be opened"):
        Ledger(path)


def test_the_tokens_of_an_answer_are_known_from_those_that_came(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.mean_tokens("judge") == (0, 0.0, 0.0)
        for q, tokens in zip(QUESTIONS, ((100, 10), (300, 50), (0, 0)), strict=False):
            ledger.keep([("judge", q, Answer(0.5, "answered", "", *tokens))])
        assert ledger.mean_tokens("judge") == (2, 200.0, 30.0)
        assert ledger.mean_tokens("another") == (0, 0.0, 0.0)
