"""What the method's published annotation tool gets wrong, one test each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.judging.endpoint import running
from tests.judging.test_api import ask, judge, questions

from zelo.artifacts import Table, table
from zelo.comparison.graphs import Cycles
from zelo.judging.agreement import judge_counts
from zelo.judging.ledger import Ledger
from zelo.judging.reply import read_reply
from zelo.rating.preferences import average


def judged(rows: list[tuple[str, str, str, float | None]]) -> Table:
    judges, a, b, scores = zip(*rows, strict=True)
    n = len(rows)
    return table(
        "judgments",
        query_id=["q"] * n,
        doc_a=a,
        doc_b=b,
        repeat=[0] * n,
        judge=judges,
        score=scores,
        status=["answered" if score is not None else "refused" for score in scores],
        reasons=[""] * n,
    )


def test_an_error_is_not_a_vote(tmp_path: Path) -> None:
    """There a failed call is 0.0, which `score > 0` then counts for document A."""
    with running(always="refused") as endpoint:
        result, _ = ask(judge(endpoint), questions(5), tmp_path)
    assert {answer.score for answer in result.answers["judge"]} == {None}
    found = average(judged([("x", "a", "b", None), ("y", "a", "b", 1.0)]), "sign")
    assert found.p.tolist() == [0.0]  # of the one that answered, not the mean with a 0
    assert average(judged([("x", "a", "b", None)]), "sign").unanswered == [("q", "a", "b")]


@pytest.mark.parametrize("text", ["-1", '{"reasons": "A", "score": -1}', "A it is.\nScore: -1"])
def test_minus_one_without_decimals_is_a_score(text: str) -> None:
    assert read_reply(text).score == -1.0


def test_graphs_are_seeded_and_hold_no_edge_twice() -> None:
    """There the cycles are shuffled before the seed is set, and edges that two share are kept."""
    for n in (3, 5, 10, 100):
        edges = [Cycles(cycles=4).edges(n, np.random.default_rng(seed)) for seed in (1, 1, 2)]
        assert np.array_equal(edges[0], edges[1])
        assert n < 6 or not np.array_equal(edges[0], edges[2])
        assert len({frozenset(edge) for edge in edges[0].tolist()}) == len(edges[0])


def test_answers_are_kept_as_they_come(tmp_path: Path) -> None:
    """There they are written once, at the end; what the budget stopped here is in the ledger."""
    with running() as endpoint:
        asked = questions(20)
        result, spending = ask(judge(endpoint), asked, tmp_path, calls=7)
        assert spending.exhausted
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            kept = ledger.find(judge(endpoint).fingerprint, asked)
        assert sum(answer is not None for answer in kept) == result.new_answers == 7


def test_strengths_are_kept_beside_signs() -> None:
    judgments = judged([("x", "a", "b", -0.2), ("y", "a", "b", 0.9)])
    assert judgments["score"].to_pylist() == [-0.2, 0.9]
    assert average(judgments, "soft").p.tolist() == pytest.approx([(1 - 0.35) / 2])
    assert average(judgments, "sign").p.tolist() == [0.5]


def test_the_leaning_to_a_place_is_measured() -> None:
    rows = [("x", "a", "b", -0.5), ("x", "c", "b", -0.5), ("x", "b", "d", -0.1), ("x", "d", "a", 1)]
    (counts,) = judge_counts(judged(rows))
    assert counts.first == 0.75
    assert counts.first_stderr == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
