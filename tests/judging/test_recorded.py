"""Preferences out of a file: as answers, and as the pairs to ask about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zelo.comparison.recorded import RecordedPairs
from zelo.errors import UserError
from zelo.judging.asking import ask_all
from zelo.judging.ledger import Ledger
from zelo.judging.question import ANSWERED, FAILED, Answer, Question
from zelo.judging.recorded import NOT_RECORDED, Recorded
from zelo.judging.spending import Budget, Spending
from zelo.judging.views import Planted

ROWS = [
    {"query_id": "q", "doc_a": "a", "doc_b": "b", "score": -0.8, "reasons": "a is about it"},
    {"query_id": "q", "doc_a": "c", "doc_b": "b", "score": 0.25},
    {"query_id": "q", "doc_a": "c", "doc_b": "b", "score": 0.75},
    {"query_id": "q", "doc_a": "a", "doc_b": "c", "score": None, "reasons": "no answer"},
]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ask(path: Path, a: str, b: str, repeat: int = 0, judge: str | None = None) -> Answer:
    prepared = Recorded(path=path, judge=judge).prepare(Path(), {}, 0)
    (answer,) = prepared.answer([Question("q", a, b, repeat, "", "", "")])
    return answer


def test_an_answer_is_what_is_recorded_turned_where_it_is_asked_the_other_way(
    tmp_path: Path,
) -> None:
    path = lines(tmp_path / "p.jsonl", ROWS)
    assert ask(path, "a", "b") == Answer(-0.8, ANSWERED, "a is about it")
    assert ask(path, "b", "a") == Answer(0.8, ANSWERED, "a is about it")
    assert ask(path, "c", "b").score == 0.5  # the mean of two rows


def test_what_is_not_recorded_is_a_failed_answer_and_no_tie(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", ROWS)
    assert ask(path, "a", "c") == Answer(None, FAILED, "no answer")
    assert ask(path, "a", "x") == Answer(None, NOT_RECORDED)
    assert ask(path, "a", "b", repeat=1) == Answer(None, NOT_RECORDED)  # it was said once


def test_it_is_known_in_which_order_an_answer_was_given(tmp_path: Path) -> None:
    """Else the leaning of a judge whose answers were recorded could not be measured."""
    path = lines(tmp_path / "p.jsonl", ROWS)
    judge = Recorded(path=path).prepare(Path(), {}, 0)
    for a, b, first in (("a", "b", "a"), ("b", "a", "a"), ("b", "c", "c"), ("x", "y", "x")):
        assert judge.in_its_order(Question("q", a, b, 0, "", a, b)).text_a == first


def test_documents_of_equal_text_keep_their_own_answers(tmp_path: Path) -> None:
    """The ledger knows a question by its texts; a judge that goes by ids is asked by ids."""
    path = lines(tmp_path / "p.jsonl", ROWS)
    judge = Recorded(path=path).prepare(Path(), {}, 0)
    asked = [Question("q", a, b, 0, "what", "same", "same") for a, b in ("ab", "cb", "xy")]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        found = ask_all({"j": judge}, {"j": asked}, ledger, Spending(Budget()), "run")
    assert [a.score for a in found.answers["j"] if a] == [-0.8, 0.5, None]


def test_p_is_the_preference_for_a(tmp_path: Path) -> None:
    rows = [{"query_id": "q", "doc_a": "a", "doc_b": "b", "p": 0.9}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    assert ask(tmp_path / "p.parquet", "a", "b").score == pytest.approx(-0.8)


def test_one_judge_of_several(tmp_path: Path) -> None:
    path = lines(tmp_path / "p.jsonl", [{**ROWS[0], "judge": "x"}, {**ROWS[1], "judge": "y"}])
    assert ask(path, "a", "b", judge="x").score == -0.8
    assert ask(path, "a", "b", judge="y") == Answer(None, NOT_RECORDED)
    with pytest.raises(UserError, match=r"holds the answers of 'x', 'y': name one judge"):
        ask(path, "a", "b")
    with pytest.raises(UserError, match=r"no row of judge 'z'; there are 'x', 'y'"):
        ask(path, "a", "b", judge="z")


def test_the_pairs_that_are_recorded_are_asked_about_once_as_they_were_shown(
    tmp_path: Path,
) -> None:
    turned = {"query_id": "q", "doc_a": "b", "doc_b": "a", "score": 0.0}
    path = lines(tmp_path / "p.jsonl", [*ROWS, turned])
    assert RecordedPairs(path=path).recorded_pairs() == {"q": [("a", "b"), ("c", "b"), ("a", "c")]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"query_id": "q", "doc_a": "a", "score": 1.0}], "and either p or score are needed"),
        ([{**ROWS[0], "p": 0.9}], "and either p or score are needed"),
        ([{**ROWS[0], "doc_a": 7}], "doc_a must be text, found int64: quote ids"),
        ([ROWS[0], {**ROWS[0], "doc_b": None}], "row 1: doc_b is empty"),
        ([ROWS[0], {**ROWS[0], "score": 1.5}], "row 1: score is 1.5, not between -1 and 1"),
        ([{**ROWS[0], "score": "much"}], "score must be a number, found string"),
    ],
)
def test_a_mistake_in_the_file_is_named(
    tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    path = lines(tmp_path / "p.jsonl", rows)
    with pytest.raises(UserError, match=message) as caught:
        ask(path, "a", "b")
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_or_neither_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.jsonl: not found"):
        ask(tmp_path / "nowhere.jsonl", "a", "b")
    (tmp_path / "p.jsonl").write_text("{not json")
    with pytest.raises(UserError, match=r"p\.jsonl: neither Parquet nor JSON lines"):
        ask(tmp_path / "p.jsonl", "a", "b")


def test_planted_scores_are_multiplied_and_none_may_be_missing(tmp_path: Path) -> None:
    rows = [{"query_id": "q", "doc_id": i, "score": s} for i, s in (("a", 1.5), ("b", -1.0))]
    view = Planted(path=lines(tmp_path / "s.jsonl", rows), gain=2.0)
    assert view.hidden_scores(Path(), {"q": ["b", "a"]}) == {("q", "b"): -2.0, ("q", "a"): 3.0}
    with pytest.raises(UserError, match="no score for query 'q', document 'c'"):
        view.hidden_scores(Path(), {"q": ["a", "c"]})
    with pytest.raises(UserError, match="no column score"):
        Planted(path=lines(tmp_path / "t.jsonl", [{"query_id": "q", "doc_id": "a"}])).hidden_scores(
            Path(), {"q": ["a"]}
        )
