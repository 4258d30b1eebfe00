from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from zelo.artifacts import read_table, table, write_table
from zelo.data.beir import BeirFolder
from zelo.data.collection import load
from zelo.errors import UserError
from zelo.judging.base import BaseJudge, LocalSession
from zelo.judging.ensemble import Ensemble
from zelo.judging.estimate import JudgeEstimate, JudgeWorkload, TextLengths
from zelo.judging.judge import judge
from zelo.judging.question import FAILED, Answer, Question
from zelo.judging.votes import prepare_sessions
from zelo.rating.preferences import average


class CountingSession(LocalSession):
    fingerprint = "counting"

    def __init__(self, asked: list[Question]) -> None:
        self.asked = asked

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        self.asked.extend(questions)
        return [
            Answer(-1.0 if len(q.doc_a) < len(q.doc_b) else 1.0, usd=0.5)
            if len(q.doc_a) != len(q.doc_b)
            else Answer(None, FAILED)
            for q in questions
        ]


class Counting(BaseJudge):
    """Prefers the shorter id, fails on ties, and counts what it is asked."""

    asked: list[Question] = []  # noqa: RUF012

    def prepare(self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int) -> CountingSession:
        return CountingSession(self.asked)


def test_nothing_is_asked_twice(beir_folder: Path, tmp_path: Path) -> None:
    data, comparisons = tmp_path / "data", tmp_path / "comparisons"
    for folder in (data, comparisons, tmp_path / "1", tmp_path / "2"):
        folder.mkdir()
    load(out=data, source=BeirFolder(path=str(beir_folder)))
    rows = [
        ("q-apples-history", a, b, 0)
        for a, b in (("d0-apples", "d0-poems"), ("d1-poems", "d2-poems"))
    ]
    columns = zip(("query_id", "doc_a", "doc_b", "repeat"), zip(*rows, strict=True), strict=True)
    write_table(comparisons, "comparisons", table("comparisons", **dict(columns)))
    member = Counting()
    ensemble = Ensemble(judges={"counting": member})
    asked = {"data": data, "comparisons": comparisons, "ensemble": ensemble, "seed": 0}
    first = judge(out=tmp_path / "1", ledger=tmp_path / "ledger.sqlite", **asked)
    again = judge(out=tmp_path / "2", ledger=tmp_path / "ledger.sqlite", **asked)
    assert (first["asked_now"], again["asked_now"]) == (2, 0)
    assert (first["failed"], first["usd"], first["judgments"]) == (1, 0.5, 2)
    assert len(member.asked) == 2
    judgments = [read_table(tmp_path / n, "judgments") for n in "12"]
    assert judgments[0].equals(judgments[1])
    assert judgments[0]["score"].to_pylist() == [1.0, None]


def judged(*scores: float | None) -> object:
    n = len(scores)
    return table(
        "judgments",
        query_id=["q"] * n,
        doc_a=["a"] * n,
        doc_b=["b"] * n,
        repeat=[0] * n,
        judge=[f"j{i}" for i in range(n)],
        score=list(scores),
        status=["answered" if s is not None else FAILED for s in scores],
        reasons=[""] * n,
    )


@pytest.mark.parametrize(
    ("scores", "vote", "p", "unanimous"),
    [
        ((-1.0, -0.5, 0.9), "soft", 0.6, False),
        ((-1.0, -0.5, 0.9), "sign", 2 / 3, False),
        ((-0.1, -0.2), "sign", 1.0, True),
        ((0.3, 0.0), "soft", 0.425, False),
        ((None, 0.5), "soft", 0.25, True),
    ],
)
def test_the_ensemble_averages_those_that_answered(
    scores: tuple[float | None, ...], vote: str, p: float, unanimous: bool
) -> None:
    found = average(judged(*scores), vote)
    assert found.p.tolist() == pytest.approx([p])
    assert found.unanimous.tolist() == [unanimous]
    assert found.unanswered == []


def test_a_comparison_that_all_failed_is_kept_apart() -> None:
    found = average(judged(None, None), "soft")
    assert found.query_ids == []
    assert found.unanswered == [("q", "a", "b")]


class NoSession(BaseJudge):
    def prepare(self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int) -> object:
        return object()


def test_a_judge_that_opens_no_session_is_named(tmp_path: Path) -> None:
    said = "judge mine: NoSession.prepare returned object; a LocalSession or a RemoteSession"
    with pytest.raises(UserError, match=said):
        prepare_sessions(Ensemble(judges={"mine": NoSession()}), tmp_path, {}, 0)


def test_what_a_judge_does_not_say_of_itself_has_a_default() -> None:
    """A judge of one's own is `prepare` and a session's `answer`, and no more."""
    lengths = TextLengths(10.0, np.array([100.0]))
    workload = JudgeWorkload((5.0, 9.0), 2.0, lengths, Path("none"), date(2026, 11, 26))
    asked = Counting().estimate("mine", workload)
    assert asked == JudgeEstimate("mine", "Counting", "mine", (5.0, 9.0))
    assert Counting().local_reading(lengths) is None
    assert not Counting.compares_queries
    session = CountingSession([])
    question = Question("q", "a", "b", 0, "what", "text of a", "text of b")
    assert session.in_its_order(question) == question
    assert session.count_truncated(["text"]) is None
    assert (session.may_guess, session.depends_on_ids) == (False, False)
