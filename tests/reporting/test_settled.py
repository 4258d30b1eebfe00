"""Whether what a report says of its Elos is so, on comparisons whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from tests.reporting.tables import judgments_of_one_judge

from zelo.artifacts import Table
from zelo.rating.rate import Rating
from zelo.rating.targets import CDF
from zelo.reporting.settled import settled


def judgments(queries: int, documents: int, each: int, spread: float, seed: int = 0) -> Table:
    """Winners drawn by the Thurstone model from Elos of some spread: `each` pairs a query."""
    draw = np.random.default_rng(seed)
    rows = []
    for q in range(queries):
        elo = draw.normal(0, spread, documents)
        pairs = [(a, b) for a in range(documents) for b in range(a)]
        for n in draw.choice(len(pairs), each, replace=False):
            a, b = pairs[n]
            won = draw.random() < CDF["thurstone"](np.array(elo[a] - elo[b]))
            rows.append((f"q{q}", f"d{a}", f"d{b}", -1.0 if won else 1.0))
    return judgments_of_one_judge(rows)


def test_more_comparisons_settle_elos() -> None:
    few = settled(judgments(60, 16, 32, 1.0), "soft", Rating(), 0)
    many = settled(judgments(60, 16, 120, 1.0), "soft", Rating(), 0)
    assert few is not None
    assert many is not None
    assert few.whole < many.whole < 1
    for found in (few, many):
        values = [r for _, r in found.curve]
        assert values == sorted(values)
        assert [size for size, _ in found.curve] == sorted(size for size, _ in found.curve)
    assert few.per_document == pytest.approx(4, rel=0.02)
    assert few.curve[-1][0] == pytest.approx(2, rel=0.02)


def test_what_halves_expect_of_all_is_what_comes_out() -> None:
    """Spearman–Brown against a second set of comparisons of the same truth and size."""
    both = judgments(150, 12, 64, 1.0)
    found = settled(both, "soft", Rating(), 0)
    half = both.take(
        [i for i in range(len(both)) if i % 2 == 0]  # 32 of the 64 of each query
    )
    expected = settled(half, "soft", Rating(), 0)
    assert found is not None
    assert expected is not None
    assert expected.whole == pytest.approx(found.curve[-1][1], abs=0.06)


def test_elos_of_judges_that_guess_are_not_settled() -> None:
    found = settled(judgments(100, 12, 48, 0.0), "soft", Rating(), 0)
    assert found is not None
    assert abs(found.whole) < 0.1
    assert found.right == pytest.approx(0.5, abs=0.05)


def test_predictions_of_held_out_answers_are_calibrated_where_the_prior_is_right() -> None:
    found = settled(judgments(400, 12, 60, 1.0), "soft", Rating(prior=1.0), 0)
    assert found is not None
    expected, seen = np.array(found.predicted).T
    assert np.abs(expected - seen).max() < 0.08
    assert (np.diff(expected) > 0).all()


@pytest.mark.parametrize("each", [1, 0])
def test_what_cannot_be_split_is_none(each: int) -> None:
    assert settled(judgments(5, 4, each, 1.0), "soft", Rating(), 0) is None
