"""What is said about judges, on answers counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from zelo.artifacts import Table, table
from zelo.judging.agreement import (
    agreements,
    choices,
    consensus,
    judge_counts,
    label_agreements,
    share_of,
)
from zelo.reporting.judges import Panel, in_words

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
    assert consensus(choices(refused)) is None


def test_choices_do_not_depend_on_the_order_shown() -> None:
    names, _, sign = choices(judgments())
    assert names == ["x", "y", "z"]
    rows = sorted(str(row) for row in sign.tolist())
    # (a, b): both a; (a, c): x a, y c; (b, c): x c by the mean of 0 and .6, y c, z b.
    assert rows == sorted(
        map(str, [[-1.0, -1.0, math.nan], [-1.0, 1.0, math.nan], [1.0, 1.0, -1.0]])
    )


def test_agreement_counts_pairs_that_both_decided() -> None:
    found = {(f.judge, f.other): (f.both, f.share) for f in agreements(choices(judgments()))}
    assert found[("x", "y")] == (3, pytest.approx(2 / 3))
    assert found[("x", "z")] == (1, 0.0)
    assert found[("y", "z")] == (1, 0.0)


def test_consensus_is_one_choice_of_all_who_answered() -> None:
    assert consensus(choices(judgments())) == pytest.approx(1 / 3)


def test_judges_are_held_against_labels() -> None:
    """Of two documents with different labels, one without a label being worth 0."""
    found = {f.judge: f for f in label_agreements(choices(judgments()), {"q": {"a": 2, "c": 1}})}
    assert (found["x"].pairs, found["x"].share) == (3, 1.0)  # a over b, a over c, c over b
    assert (found["y"].pairs, found["y"].share) == (3, pytest.approx(2 / 3))
    assert (found["z"].pairs, found["z"].share) == (1, 0.0)  # b over c
    assert [f.pairs for f in label_agreements(choices(judgments()), {"another": {"a": 1}})] == [
        0
    ] * 3
    tie = label_agreements(choices(judgments().slice(6, 1)), {"q": {"b": 1}})
    assert tie[0].share == 0.5


def test_the_interval_of_a_share_allows_for_queries_whose_comparisons_are_alike() -> None:
    """Wilson's where comparisons are independent; of copies, that of the originals."""
    rng = np.random.default_rng(0)
    right = (rng.random(400) < 0.7).astype(float)
    share, low, high = share_of(right, np.arange(400))
    wilson = binomtest(int(right.sum()), 400).proportion_ci(method="wilson")
    assert share == right.mean()
    assert (low, high) == (pytest.approx(wilson.low), pytest.approx(wilson.high))
    copies = share_of(np.repeat(right, 25), np.repeat(np.arange(400), 25))
    assert copies == pytest.approx((share, low, high))
    # All right, of two queries: as little is known as two answers tell.
    assert share_of(np.ones(50), np.repeat([0, 1], 25))[1] == pytest.approx(0.342, abs=1e-3)
    assert all(map(math.isnan, share_of(np.empty(0), np.empty(0, np.int64))))


def test_what_judges_agree_on_is_said_in_two_lines() -> None:
    chosen = choices(judgments())
    labels = {f.judge: f for f in label_agreements(chosen, {"q": {"a": 2, "c": 1}})}
    alike, labelled = in_words(Panel("", [], agreements(chosen), labels, None, {}, {}, {}))
    assert alike.startswith("judges choose alike in 0% [0, 79] (x and z), 0%")
    assert labelled.startswith(
        "they order as labels do, which nothing learns from: x 100% [21, 100]"
    )
    assert labelled.endswith(" of 3 labelled pairs")
    assert in_words(Panel("", [], [], {}, None, {}, {}, {})) == []
