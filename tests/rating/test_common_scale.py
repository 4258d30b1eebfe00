"""Targets on one scale for all queries, from judgments across them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import erf

from zelo.artifacts import read_table, table, write_table
from zelo.comparison.crossquery import cross_pairs
from zelo.rating.common_scale import on_common_scale, preferences_across
from zelo.rating.rate import Rating, rate


def judgments(rows: list[tuple[str, str, str | None, str, str, float | None]]) -> Any:
    q, a, r, b, judge, score = map(list, zip(*rows, strict=True))
    return table(
        "judgments", query_id=q, doc_a=a, query_b=r, doc_b=b, repeat=[0] * len(q), judge=judge,
        score=score, status=["answered"] * len(q), reasons=[""] * len(q),
    )  # fmt: skip


def test_answers_across_queries_are_averaged_however_they_were_shown() -> None:
    said = judgments(
        [
            ("q", "a", "r", "b", "x", -1.0),
            ("r", "b", "q", "a", "y", 0.5),  # for the same as x
            ("q", "a", "r", "a", "x", 0.2),  # one document, two queries: another comparison
            ("q", "b", "r", "a", "x", None),
        ]
    )
    found = preferences_across(said, "soft")
    assert found == {
        (("q", "a"), ("r", "b")): pytest.approx((1 + 0.75) / 2),
        (("q", "a"), ("r", "a")): pytest.approx(0.4),
    }
    assert preferences_across(said, "sign")[("q", "a"), ("r", "b")] == 1.0


def test_planted_biases_come_back_as_targets() -> None:
    rng = np.random.default_rng(0)
    queries, n = 40, 6
    elo = rng.normal(0, 0.7, (queries, n))
    elo -= elo.mean(1, keepdims=True)
    bias = rng.normal(0, 0.5, queries)
    bias -= bias.mean()
    offsets = np.arange(queries + 1) * n
    first, second = cross_pairs(offsets, 8, rng, 3)
    flat, of = elo.ravel(), np.repeat(np.arange(queries), n)
    gap = flat[first] + bias[of[first]] - flat[second] - bias[of[second]]
    said = judgments(
        [
            (f"q{of[i]}", f"d{i % n}", f"q{of[j]}", f"d{j % n}", "x", float(-erf(g)))
            for i, j, g in zip(first, second, gap, strict=True)
        ]
        + [("q0", "unknown", "q1", "d0", "x", 0.0)]
    )
    ratings = table(
        "ratings",
        query_id=[f"q{q}" for q in of],
        doc_id=[f"d{i % n}" for i in range(len(flat))],
        elo=flat,
        stderr=np.full(len(flat), 0.1),
        target=flat,
    )
    options: dict[str, Any] = {"model": "thurstone", "prior": 1e-6}
    moved, biases, counts = on_common_scale(ratings, said, "soft", **options, target="centred")
    np.testing.assert_allclose(biases["bias"].to_numpy(), bias, atol=2e-3)
    target = moved["target"].to_numpy()
    np.testing.assert_allclose(target, flat + np.repeat(bias, n), atol=2e-3)
    assert moved["elo"].equals(ratings["elo"])
    assert counts["cross_left_out"] == 1
    assert counts["cross_components"] == 1
    as_chance, _, _ = on_common_scale(ratings, said, "soft", **options, target="cdf")
    np.testing.assert_allclose(as_chance["target"].to_numpy(), (1 + erf(target)) / 2, atol=1e-12)


def test_the_stage_writes_biases_beside_elos_that_stay(tmp_path: Path) -> None:
    within = [
        (q, a, None, b, "x", s)
        for q in ("q", "r")
        for a, b, s in (("a", "b", -0.6), ("b", "c", -0.4), ("a", "c", -0.7))
    ]
    between: list[Any] = [("q", "a", "r", "a", "x", -0.8), ("r", "b", "q", "b", "x", 0.6)]
    for name, rows in (("within", within), ("between", between)):
        (tmp_path / name).mkdir()
        write_table(tmp_path / name, "judgments", judgments(rows))
    for name, cross in (("plain", None), ("moved", tmp_path / "between")):
        (tmp_path / name).mkdir()
        counts = rate(out=tmp_path / name, rating=Rating(), vote="soft", cross=cross,
                      judgments=tmp_path / "within")  # fmt: skip
    assert counts["cross_comparisons"] == 2
    plain, found = (read_table(tmp_path / name, "ratings") for name in ("plain", "moved"))
    assert plain["elo"].equals(found["elo"])
    written = read_table(tmp_path / "moved", "query_biases")
    bias = dict(zip(written["query_id"].to_pylist(), written["bias"].to_pylist(), strict=True))
    assert bias["q"] > 0.2 > -0.2 > bias["r"]
    lifted = np.where(np.array(found["query_id"].to_pylist()) == "q", bias["q"], bias["r"])
    np.testing.assert_allclose(found["target"].to_numpy(), plain["elo"].to_numpy() + lifted)
