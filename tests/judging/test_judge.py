from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from zelo.artifacts import read_table, table, write_table
from zelo.data.beir import BeirFolder
from zelo.data.collection import load
from zelo.judging.base import BaseJudge, LocalSession
from zelo.judging.ensemble import Ensemble, average
from zelo.judging.judge import judge
from zelo.judging.question import FAILED, Answer, Question


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
