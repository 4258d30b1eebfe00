"""Calibration of scores: exact references and properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zelo.evaluation.calibration import (
    Pairs,
    Probability,
    auc_within,
    best_threshold,
    calibrate,
    fit_probability,
    keep,
    reliability,
)

RANKINGS = {"q1": [("a", 3.0), ("b", 2.0), ("c", 1.0)], "q2": [("a", 0.9), ("d", 0.5)]}
GRADES = {"q1": {"a": 2, "c": 0}, "q2": {"d": 1, "unranked": 1}}


def drawn(n: int, slope: float, intercept: float, seed: int = 0) -> Pairs:
    """Pairs that follow the model exactly."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=n)
    chance = 1 / (1 + np.exp(-(slope * score + intercept)))
    return pairs_of(score, rng.random(n) < chance, rng.integers(0, 50, n))


def pairs_of(score: Any, relevant: Any, query: Any) -> Pairs:
    """Pairs of queries that have no other relevant document."""
    relevant = np.asarray(relevant, bool)
    queries = int(np.max(query)) + 1
    return Pairs(
        np.asarray(score, float), relevant, np.asarray(query), queries, int(relevant.sum())
    )


def test_pairs_are_the_ranked_documents_and_grades_below_one_are_not_relevant() -> None:
    pairs = Pairs.of(RANKINGS, GRADES, depth=2)
    assert pairs.score.tolist() == [3.0, 2.0, 0.9, 0.5]
    assert pairs.relevant.tolist() == [True, False, False, True]
    assert pairs.query.tolist() == [0, 0, 1, 1]
    assert (pairs.queries, pairs.all_relevant) == (2, 3)


def test_what_was_not_retrieved_counts() -> None:
    pairs = Pairs.of({**RANKINGS, "q3": []}, GRADES)
    kept = keep(pairs, best_threshold(pairs))
    assert kept.threshold == 3.0  # one of one is right; all five would have 2 of 3
    assert (kept.recall, kept.recall_possible) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert kept.kept_per_query == pytest.approx(1 / 3)
    assert kept.queries_with_nothing == pytest.approx(2 / 3)


def test_the_probability_that_was_planted_is_found() -> None:
    pairs = drawn(40_000, 2.0, -1.0)
    found = fit_probability(pairs)
    assert (found.slope, found.intercept) == pytest.approx((2.0, -1.0), abs=0.07)
    scaled = fit_probability(pairs_of(pairs.score * 1e-3, pairs.relevant, pairs.query))
    assert scaled.slope == pytest.approx(found.slope * 1e3, rel=1e-3)
    good = reliability(drawn(40_000, 2.0, -1.0, seed=1), found)
    assert good.error < 0.01
    assert good.brier < good.brier_of_rate
    bad = reliability(drawn(40_000, 2.0, 1.0, seed=1), found)
    assert bad.error > 0.2  # the share of relevant pairs is another


def test_scores_of_another_level_per_query_part_auc_within_from_over_all() -> None:
    pairs = drawn(20_000, 3.0, 0.0)
    level = np.random.default_rng(2).normal(scale=5, size=50)
    moved = pairs_of(pairs.score + level[pairs.query], pairs.relevant, pairs.query)
    before, after = reliability(moved, Probability(1, 0)), reliability(pairs, Probability(3, 0))
    assert before.auc_within == pytest.approx(after.auc_within)
    assert before.auc < 0.7 < after.auc
    assert after.error < 0.02 < before.error


def test_a_threshold_is_the_best_of_all() -> None:
    pairs = pairs_of(np.array([5.0, 4, 3, 2, 1]), np.array([1, 1, 0, 1, 0], bool), np.arange(5))
    assert best_threshold(pairs) == 2.0
    kept = keep(pairs, 2.0)
    assert (kept.precision, kept.recall) == (0.75, 1.0)
    assert kept.f1 == pytest.approx(6 / 7)
    assert (kept.kept_per_query, kept.queries_with_nothing) == (0.8, pytest.approx(0.2))
    nothing = keep(pairs, 9.0)
    assert (nothing.precision, nothing.recall, nothing.f1) == (0, 0, 0)
    assert nothing.queries_with_nothing == 1


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40))
def test_no_other_threshold_does_better(rows: list[tuple[int, bool]]) -> None:
    score, relevant = (np.array(column) for column in zip(*rows, strict=True))
    pairs = pairs_of(score.astype(float), relevant.astype(bool), np.arange(len(rows)) % 3)
    if not relevant.any():
        return
    best = keep(pairs, best_threshold(pairs)).f1
    assert best == pytest.approx(max(keep(pairs, t).f1 for t in pairs.score))


def test_auc_within_is_the_mean_over_queries_that_have_both() -> None:
    score, relevant = np.array([2.0, 1, 1, 2, 5]), np.array([1, 0, 1, 0, 1], bool)
    assert auc_within(pairs_of(score, relevant, np.array([0, 0, 1, 1, 2]))) == 0.5
    assert np.isnan(auc_within(pairs_of(score[:1], relevant[:1], np.array([0]))))


def test_what_cannot_be_calibrated_is_said() -> None:
    none = pairs_of(np.array([1.0, 2.0]), np.array([False, False]), np.array([0, 0]))
    some = pairs_of(np.array([1.0, 2.0]), np.array([False, True]), np.array([0, 0]))
    assert "that a threshold is chosen on, 0 are" in calibrate("s", none, some)["reason"]
    assert "that a threshold is tested on, 0 are" in calibrate("s", some, none)["reason"]
