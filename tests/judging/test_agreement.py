"""What is said about judges, on answers counted by hand."""

from __future__ import annotations

import math

import pytest

from zelo.artifacts import Table, table
from zelo.judging.agreement import agreements, choices, consensus, judge_counts

ROWS = [
    # judge, shown first, shown second, score, status
    ("x", "a", "b", -1.0, "answered"),
    ("y", "b", "a", 0.4, "answered"),  # a too
    ("z", "a", "b", None, "refused"),
    ("x", "a", "c", -0.2, "answered"),
    ("y", "c", "a", -0.9, "answered"),  # c
    ("z", "a", "c", None, "missing"),
    ("x", "b", "c", 0.0, "answered"),
    ("y", "b", "c", 0.7, "answered"),
    ("z", "b", "c", -0.7, "answered"),
    ("x", "b", "c", 0.6, "answered"),  # asked again: its mean is what counts
]


def judgments() -> Table:
    judge, a, b, score, status = zip(*ROWS, strict=True)
    return table(
        "judgments",
        query_id=["q"] * len(ROWS),
        doc_a=a,
        doc_b=b,
        repeat=[0] * 9 + [1],
        judge=judge,
        score=score,
        status=status,
        reasons=[""] * len(ROWS),
    )


def test_counts_of_a_judge() -> None:
    x, y, z = judge_counts(judgments())
    assert (x.judge, x.answers, x.ties, x.missing, x.failed) == ("x", 4, 1, 0, {})
    assert x.first == pytest.approx(2 / 3)  # of three decided answers
    assert x.first_stderr == pytest.approx(math.sqrt(2 / 9 / 3))
    assert (y.answers, y.ties, y.first) == (3, 0, pytest.approx(1 / 3))
    assert (z.answers, z.missing, z.failed, z.first) == (1, 1, {"refused": 1}, 1.0)


def test_a_judge_without_an_answer_has_no_bias() -> None:
    refused = judgments().slice(2, 1)
    (z,) = judge_counts(refused)
    assert (z.answers, z.failed) == (0, {"refused": 1})
    assert math.isnan(z.first)
    assert math.isnan(z.first_stderr)
    assert consensus(refused) is None


def test_choices_do_not_depend_on_the_order_shown() -> None:
    names, sign = choices(judgments())
    assert names == ["x", "y", "z"]
    rows = sorted(str(row) for row in sign.tolist())
    # (a, b): both a; (a, c): x a, y c; (b, c): x c by the mean of 0 and .6, y c, z b.
    assert rows == sorted(
        map(str, [[-1.0, -1.0, math.nan], [-1.0, 1.0, math.nan], [1.0, 1.0, -1.0]])
    )


def test_agreement_counts_pairs_that_both_decided() -> None:
    found = {(f.judge, f.other): (f.both, f.share) for f in agreements(judgments())}
    assert found[("x", "y")] == (3, pytest.approx(2 / 3))
    assert found[("x", "z")] == (1, 0.0)
    assert found[("y", "z")] == (1, 0.0)


def test_consensus_is_one_choice_of_all_who_answered() -> None:
    assert consensus(judgments()) == pytest.approx(1 / 3)
