"""Which judge is asked what, and when a comparison has answers enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from tests.conftest import write_beir

from zelo.artifacts import read_table, table, write_table
from zelo.comparison.compare import compare
from zelo.comparison.graphs import Regular
from zelo.data.beir import BeirFolder
from zelo.data.collection import load
from zelo.errors import UserError
from zelo.judging.agreement import judge_counts
from zelo.judging.api import ApiJudge
from zelo.judging.base import LocalSession
from zelo.judging.ensemble import Ensemble
from zelo.judging.judge import judge
from zelo.judging.provider import Provider
from zelo.judging.question import Answer, Question
from zelo.judging.simulated import Noise, Simulated
from zelo.judging.views import Planted
from zelo.judging.votes import ComparisonVotes, VoteCollector
from zelo.rating.preferences import average

QUESTION = Question("q", "a", "b", 0, "what", "text of a", "text of b")


def simulated(path: Path, **noise: float) -> Simulated:
    return Simulated(view=Planted(path=path), noise=Noise(**{"spread": 0.0, "guess": 0.0} | noise))


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """Hidden scores of sixty documents, one query's candidates."""
    path = tmp_path / "planted.jsonl"
    rows = [f'{{"query_id": "q", "doc_id": "d{i}", "score": {i / 12}}}' for i in range(60)]
    path.write_text("\n".join(rows))
    return path


@pytest.fixture
def asked(tmp_path: Path) -> Mapping[str, Path]:
    """The collection, and 240 comparisons of its documents."""
    folder = write_beir(
        tmp_path / "collection",
        {f"d{i}": f"document {i}" for i in range(60)},
        {"q": "document"},
        {"train": [("q", "d0", 1)]},
    )
    found = {name: tmp_path / name for name in ("data", "candidates", "comparisons")}
    for path in found.values():
        path.mkdir()
    load(out=found["data"], source=BeirFolder(path=str(folder)))
    ranked = table("candidates", query_id=["q"] * 60, doc_id=[f"d{i}" for i in range(60)],
                   rank=list(range(60)), score=[0.0] * 60, split=["train"] * 60)  # fmt: skip
    write_table(found["candidates"], "candidates", ranked)
    compare(
        out=found["comparisons"],
        data=found["data"],
        candidates=found["candidates"],
        sampler=Regular(degree=8),
        depth=60,
        seed=0,
    )
    return {name: found[name] for name in ("data", "comparisons")}


Due = Mapping[str, list[tuple[ComparisonVotes, Question]]]  # what to ask next, by judge


def say(due: Due, scores: Mapping[str, float]) -> None:
    """Answer what is due as the judges of `scores` would, whatever is shown first."""
    for name, asked in due.items():
        for comparison, question in asked:
            sign = 1 if question.doc_a == comparison.question.doc_a else -1
            comparison.answers.append((name, question, Answer(sign * scores[name])))


class AsShown(LocalSession):
    """Of a judge that is never asked here."""

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        raise NotImplementedError


def due_of(
    votes: Sequence[ComparisonVotes], judges: Ensemble, given_up: Mapping[str, str] | None = None
) -> Due:
    """The questions to ask next."""
    nothing: Any = None
    sessions = {name: AsShown() for name in judges.judges}
    collector = VoteCollector(judges, sessions, nothing, nothing, "run", given_up=given_up or {})
    return collector.next_questions(votes)


def ensemble(planted: Path, **options: object) -> Ensemble:
    member = simulated(planted)
    return Ensemble(judges={"one": member, "two": member, "three": member}, **options)


def test_without_a_wanted_error_each_judge_is_asked_once(planted: Path) -> None:
    votes = [ComparisonVotes(QUESTION)]
    due = due_of(votes, ensemble(planted))
    assert {name: len(asked) for name, asked in due.items()} == {"one": 1, "two": 1, "three": 1}
    say(due, {"one": 1.0, "two": -1.0, "three": 1.0})
    assert due_of(votes, ensemble(planted)) == {}


def test_answers_that_differ_are_followed_by_more_in_turn_up_to_the_cap(planted: Path) -> None:
    judges = ensemble(planted, vote="sign", max_stderr=0.1, max_answers=7)
    votes = [ComparisonVotes(QUESTION)]
    order = []
    while due := due_of(votes, judges):
        order.append([(name, q.repeat) for name, asked in due.items() for _, q in asked])
        say(due, {"one": 0.9, "two": -0.2, "three": 0.5})
    assert order[0] == [("one", 0), ("two", 0), ("three", 0)]
    assert order[1:] == [[("one", 1)], [("two", 1)], [("three", 1)], [("one", 2)]]


def test_what_is_shown_first_is_turned_from_judge_to_judge_and_from_repeat_to_repeat(
    planted: Path,
) -> None:
    judges = ensemble(planted, vote="sign", max_stderr=0.1, max_answers=6)
    votes = [ComparisonVotes(QUESTION)]
    first = {}
    while due := due_of(votes, judges):
        for name, asked in due.items():
            for _, q in asked:
                first[name, q.repeat] = q.doc_a
                assert {q.doc_a: q.text_a, q.doc_b: q.text_b} == {
                    "a": "text of a",
                    "b": "text of b",
                }
        say(due, {"one": 0.9, "two": -0.2, "three": 0.5})
    assert [first[name, 0] for name in judges.judges] == ["a", "b", "a"]
    assert [first[name, 1] for name in judges.judges] == ["b", "a", "b"]


def test_equal_signs_are_enough_where_signs_are_counted(planted: Path) -> None:
    """The standard error is that of what is averaged: of signs, or of strengths."""
    for vote, rounds in (("sign", 1), ("soft", 7)):
        judges = ensemble(planted, vote=vote, max_stderr=0.01, max_answers=9)
        votes, n = [ComparisonVotes(QUESTION)], 0
        while due := due_of(votes, judges):
            n += 1
            say(due, {"one": 0.9, "two": 0.2, "three": 0.5})
        assert n == rounds


@pytest.mark.parametrize(
    ("scores", "settled"),
    [
        ([1.0], False),  # one answer has no standard error
        ([1.0, 1.0], True),
        ([0.1, 0.3], True),  # its error is exactly 0.1
        ([0.1, 0.31], False),
        ([1.0, -1.0] * 60, True),  # 120 answers know a tie to 0.09
    ],
)
def test_settled_is_the_standard_error_of_the_mean(
    planted: Path, scores: list[float], settled: bool
) -> None:
    found = ensemble(planted, max_stderr=0.1, max_answers=200)
    if len(scores) > 1:
        error = np.std(scores, ddof=1) / len(scores) ** 0.5
        assert (error <= 0.1 + 1e-12) == settled
    assert found.settled([("one", score) for score in scores]) == settled


def test_a_judge_of_less_weight_counts_less(planted: Path, asked: Mapping[str, Path]) -> None:
    """In the mean, in its error and in what is rated; and nothing changes where all count alike."""
    found = ensemble(planted, weights={"one": 0.5}, max_stderr=0.1)
    said = [("one", -1.0), ("two", 0.5), ("three", 0.5)]
    assert found.preference(said) == pytest.approx((1 - (-0.5 + 0.5 + 0.5) / 2.5) / 2)
    assert ensemble(planted).preference(said) == (1 - (-1.0 + 0.5 + 0.5) / 3) / 2
    equal = ensemble(planted, weights=dict.fromkeys(("one", "two", "three"), 2.0), max_stderr=0.1)
    for scores in ([0.1, 0.3, 0.2], [0.1, 0.31, 0.9], [0.9, 0.9, 0.9]):
        answers = list(zip(("one", "two", "three"), scores, strict=True))
        assert equal.settled(answers) == ensemble(planted, max_stderr=0.1).settled(answers)
    # Who hardly counts does not matter for how sure the mean is.
    little = ensemble(planted, weights={"one": 1e-6}, max_stderr=0.1)
    assert little.settled(said)
    assert not equal.settled(said)
    noisy = {name: simulated(planted, spread=float(n)) for n, name in enumerate("abc")}
    rated = []
    for weights in ({}, {"a": 4.0}):
        judges = Ensemble(judges=noisy, weights=weights)
        out = asked["data"].parent / f"out{len(weights)}"
        out.mkdir()
        judge(out=out, ensemble=judges, seed=0, ledger=out / "ledger.sqlite", **asked)
        rows = read_table(out, "judgments")
        assert set(rows["weight"].to_pylist()) == {1.0, *weights.values()}
        rated.append(average(rows, "soft").p)
        by_pair: dict[frozenset[str], list[tuple[float, float]]] = {}
        for row in rows.to_pylist():
            sign = 1 if row["doc_a"] < row["doc_b"] else -1
            said_of = by_pair.setdefault(frozenset((row["doc_a"], row["doc_b"])), [])
            said_of.append((sign * row["score"], row["weight"]))
        means = [np.average(*np.array(said_of).T[:1], weights=np.array(said_of).T[1])
                 for said_of in by_pair.values()]  # fmt: skip
        assert np.abs(2 * rated[-1] - 1) == pytest.approx(np.abs(means))
    assert np.abs(rated[0] - rated[1]).max() > 0.01


@pytest.mark.parametrize(
    ("weights", "said"),
    [({"four": 1.0}, "no judge is called 'four'"), ({"one": 0.0}, "weights.one=0: it must be")],
)
def test_a_weight_is_of_a_judge_and_above_nothing(
    planted: Path, weights: dict[str, float], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        ensemble(planted, weights=weights)


def test_a_judge_that_is_down_is_missing_and_the_others_are_asked(planted: Path) -> None:
    votes = [ComparisonVotes(QUESTION)]
    due = due_of(votes, ensemble(planted, max_stderr=0.1), {"two": "gone"})
    assert set(due) == {"one", "three"}
    assert [(name, answer) for name, _, answer in votes[0].answers] == [("two", None)]


def test_one_that_goes_down_later_is_missing_where_its_turn_comes(planted: Path) -> None:
    """Answers that differ have the second judge asked again, who is gone by then."""
    votes = [ComparisonVotes(QUESTION)]
    judges = ensemble(planted, vote="sign", max_stderr=0.1, max_answers=9)
    say(due_of(votes, judges), {"one": 1.0, "two": -1.0, "three": 1.0})
    say(due_of(votes, judges), {"one": 1.0})
    assert due_of(votes, judges, {"two": "gone"}) == {}
    assert [(name, answer) for name, _, answer in votes[0].answers if answer is None] == [
        ("two", None)
    ]
    assert due_of(votes, judges, {"two": "gone"}) == {}


def test_the_cap_counts_answers_in_both_orders(planted: Path) -> None:
    votes = [ComparisonVotes(QUESTION)]
    judges = ensemble(planted, vote="sign", max_stderr=0.01, max_answers=9, both_orders=True)
    while due := due_of(votes, judges):
        say(due, {"one": 0.9, "two": -0.2, "three": 0.5})
    assert len(votes[0].answers) == 8  # two more would be ten
    with pytest.raises(ValidationError, match=r"max_answers=5 is less than the 6 answers"):
        ensemble(planted, max_stderr=0.1, max_answers=5, both_orders=True)


def test_a_judge_under_two_names_is_refused(tmp_path: Path, asked: Mapping[str, Path]) -> None:
    """Its one answer would count twice."""
    provider = Provider(name="p", base_url="http://127.0.0.1:9/v1")
    twins = {name: ApiJudge(provider=provider, model="m") for name in ("one", "two")}
    out, ledger = tmp_path / "out", tmp_path / "ledger.sqlite"
    with pytest.raises(UserError, match="one and two are the same judge"):
        judge(out=out, ensemble=Ensemble(judges=twins), ledger=ledger, seed=0, **asked)


def test_a_cap_below_the_number_of_judges_is_a_mistake(planted: Path) -> None:
    with pytest.raises(ValidationError, match=r"max_answers=2 is less than the 3 answers"):
        ensemble(planted, max_stderr=0.1, max_answers=2)


def test_noisy_judges_are_asked_again_only_where_they_differ(
    planted: Path, asked: Mapping[str, Path], tmp_path: Path
) -> None:
    member = simulated(planted, spread=0.5, guess=0.05)
    judges = Ensemble(
        judges={"one": member, "two": member}, vote="sign", max_stderr=0.1, max_answers=8
    )
    out = tmp_path / "out"
    out.mkdir()
    record = judge(out=out, ensemble=judges, ledger=tmp_path / "ledger.sqlite", seed=0, **asked)
    rows = read_table(out, "judgments").to_pylist()
    said: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        key = tuple(sorted((row["doc_a"], row["doc_b"])))
        said.setdefault(key, []).append(row["score"] if key[0] == row["doc_a"] else -row["score"])
    assert len(said) == record["comparisons"] == 240
    sizes = Counter(map(len, said.values()))
    assert set(sizes) == {2, 8}  # two unequal signs are never settled within eight answers
    for scores in said.values():
        assert len(scores) == (2 if len({np.sign(s) for s in scores[:2]}) == 1 else 8)
    assert len({(r["judge"], r["doc_a"], r["doc_b"], r["repeat"]) for r in rows}) == len(rows)


def test_a_leaning_that_judges_share_cancels_between_them(
    planted: Path, asked: Mapping[str, Path], tmp_path: Path
) -> None:
    """Two judges that lean alike see the two orders: their mean does not lean."""
    leaning = simulated(planted, position_bias=1.0)
    found = {}
    for names in (("one",), ("one", "two")):
        out = tmp_path / f"{len(names)}"
        out.mkdir()
        judges = Ensemble(judges=dict.fromkeys(names, leaning))
        judge(out=out, ensemble=judges, ledger=tmp_path / "ledger.sqlite", seed=0, **asked)
        said = average(read_table(out, "judgments"), "soft")
        gap = [int(b[1:]) - int(a[1:]) for a, b in zip(said.doc_a, said.doc_b, strict=True)]
        found[len(names)] = np.mean(
            [p > 0.5 if d > 0 else p < 0.5 for p, d in zip(said.p, gap, strict=True)]
        )
    assert found[1] > 0.1
    assert found[2] == 0.0


def test_both_orders_is_a_choice_and_takes_out_a_bias(
    planted: Path, asked: Mapping[str, Path], tmp_path: Path
) -> None:
    """A judge that leans to what it sees first: measured, and gone from the mean of both orders."""
    found = {}
    for both in (False, True):
        judges = Ensemble(
            judges={"leaning": simulated(planted, position_bias=1.0)}, both_orders=both
        )
        out = tmp_path / f"out{both}"
        out.mkdir()
        judge(out=out, ensemble=judges, ledger=tmp_path / "ledger.sqlite", seed=0, **asked)
        found[both] = read_table(out, "judgments")
    assert len(found[True]) == 2 * len(found[False]) == 480
    (single,), (double,) = judge_counts(found[False]), judge_counts(found[True])
    for counts in (single, double):
        assert counts.first - 0.5 > 3 * counts.first_stderr
    errors = {}
    for both, judgments in found.items():
        said = average(judgments, "sign")
        gap = [int(b[1:]) - int(a[1:]) for a, b in zip(said.doc_a, said.doc_b, strict=True)]
        wrong = [p > 0.5 if d > 0 else p < 0.5 for p, d in zip(said.p, gap, strict=True)]
        errors[both] = np.mean(wrong)
    assert errors[False] > 0.1
    assert errors[True] == 0.0
