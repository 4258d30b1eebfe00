"""Orders of blocks and comparisons of two, rated together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from zelo.artifacts import Table, table
from zelo.rating import Comparisons, fit
from zelo.rating.rate_lists import LOGISTIC, ListRatings, rate_lists

Row = tuple[str, int, str, list[str], list[int | None] | None, float]


def orders(*rows: Row) -> Table:
    names = ("query_id", "block", "judge", "doc_ids", "places", "weight")
    columns: dict[str, Any] = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    none = [None] * len(rows)
    return table("list_judgments", **columns, relevant=none, status=none, reasons=none)


def judgments(*rows: tuple[str, str, str, str, float | None]) -> Table:
    query, a, b, judge, score = map(list, zip(*rows, strict=True)) if rows else ([],) * 5
    return table(
        "judgments", query_id=query, doc_a=a, doc_b=b, repeat=[0] * len(query), judge=judge,
        score=pa.array(score, pa.float64()), status=[""] * len(query), reasons=[""] * len(query),
    )  # fmt: skip


def elos(found: ListRatings) -> dict[tuple[str, str], float]:
    rows = found.ratings.to_pylist()
    return {(row["query_id"], row["doc_id"]): row["elo"] for row in rows}


def rated(answers: Table, *rounds: Table, **options: Any) -> ListRatings:
    chosen = {"model": "thurstone", "prior": 0.05, "target": "centred"} | options
    return rate_lists(answers, rounds, "soft", **chosen)


def test_elos_are_on_the_scale_of_thurstone() -> None:
    """Queries whose true Elos are known: rated by orders of two, and by answers to pairs."""
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    query, first, second = [], [], []
    ids = [f"d{i}" for i in range(12)]
    for q in range(30):
        e = rng.normal(0, 0.6, 12)
        for b in range(150):
            block = rng.permutation(12)[:2]
            order = np.argsort(-(LOGISTIC * e[block] + rng.gumbel(size=2)))
            rows.append((f"q{q}", b, "x", [ids[i] for i in block], np.argsort(order).tolist(), 1.0))
            query.append(q)
            first.append(block[order[0]])
            second.append(block[order[1]])
    by_list = elos(rated(judgments(), orders(*rows)))
    by_pair = fit(Comparisons(query, first, second, np.ones(len(query)), sizes=[12] * 30)).elo
    a = np.array([by_list[f"q{q}", d] for q in range(30) for d in ids])
    assert a.std() == pytest.approx(by_pair.std(), rel=0.05)
    assert np.corrcoef(a, by_pair)[0, 1] > 0.998  # the two models differ in their tails


def test_of_two_judges_each_has_half_an_order() -> None:
    block = ["a", "b", "c"]
    one = rated(judgments(), orders(("q", 0, "x", block, [0, 1, 2], 1.0)))
    two = rated(
        judgments(),
        orders(("q", 0, "x", block, [0, 1, 2], 1.0), ("q", 0, "y", block, [0, 1, 2], 3.0)),
    )
    assert elos(one) == pytest.approx(elos(two))
    half = rated(
        judgments(),
        orders(("q", 0, "x", block, [0, 1, 2], 1.0), ("q", 0, "y", block, [2, 1, 0], 1.0)),
    )
    assert elos(half)["q", "a"] == pytest.approx(elos(half)["q", "c"])
    alone = rated(
        judgments(),
        orders(("q", 0, "x", block, [0, 1, 2], 1.0), ("q", 0, "y", block, None, 1.0)),
    )
    assert elos(alone) == pytest.approx(elos(one))
    assert alone.fits["unanswered"].to_pylist() == [1]


def test_rounds_add_up_and_pairs_count_beside() -> None:
    first = orders(("q", 0, "x", ["a", "b"], [0, 1], 1.0))
    both = rated(judgments(), first, orders(("q", 0, "x", ["b", "c"], [0, 1], 1.0)))
    assert both.fits.to_pylist()[0] == {
        "query_id": "q", "documents": 3, "comparisons": 2, "unanswered": 0, "components": 1,
        "iterations": both.fits["iterations"][0].as_py(), "converged": True,
    }  # fmt: skip
    a, b, c = (elos(both)["q", d] for d in "abc")
    assert a > b > c
    mixed = rated(
        judgments(
            ("q", "c", "a", "z", -0.9), ("q", "c", "b", "z", None), ("q", "a", "b", "x", -1.0)
        ),
        first,
    )
    assert elos(mixed)["q", "c"] > elos(mixed)["q", "a"] > elos(mixed)["q", "b"]
    assert mixed.fits["unanswered"].to_pylist() == [1]
    assert mixed.fits["comparisons"].to_pylist() == [2]  # what x implies is no comparison


def test_what_nothing_is_known_of_has_no_elo() -> None:
    found = rated(
        judgments(("r", "a", "b", "x", None)),
        orders(
            ("q", 0, "x", ["a", "b", "c", "d"], [0, None, -1, -1], 1.0),
            ("q", 1, "x", ["e", "f"], [0, 1], 1.0),
            ("r", 0, "x", ["a", "b"], None, 1.0),
        ),
    )
    assert sorted(d for _, d in elos(found)) == ["a", "c", "d", "e", "f"]
    assert elos(found)["q", "c"] == elos(found)["q", "d"] < elos(found)["q", "a"]
    fits = {row["query_id"]: row for row in found.fits.to_pylist()}
    assert (fits["q"]["components"], fits["r"]["documents"], fits["r"]["components"]) == (2, 0, 0)


def test_slots_are_modelled_with_the_judges() -> None:
    rng = np.random.default_rng(3)
    ids = [f"d{i}" for i in range(8)]
    h = {"steady": np.zeros(4), "hasty": np.array([1.0, 0.3, -0.3, -1.0])}
    rows, truth = [], {}
    for q in range(40):
        e = rng.normal(0, 1, 8)
        truth |= {(f"q{q}", d): v for d, v in zip(ids, e - e.mean(), strict=True)}
        for b in range(6):
            block = rng.permutation(8)[:4]
            for judge, effect in h.items():
                order = np.argsort(-(e[block] + effect + rng.gumbel(size=4)))
                shown = [ids[i] for i in block]
                rows.append((f"q{q}", b, judge, shown, np.argsort(order).tolist(), 1.0))
    plain = rated(judgments(), orders(*rows), model="bradley_terry")
    joint = rated(judgments(), orders(*rows), model="bradley_terry", joint_judges=True)
    assert plain.slot_effects is None
    assert joint.slot_effects is not None
    for row in joint.slot_effects.to_pylist():
        assert abs(row["effect"] - h[row["judge"]][row["slot"]]) < 3.5 * row["stderr"]
    right = {
        name: np.corrcoef(list(found.values()), [truth[key] for key in found])[0, 1]
        for name, found in (("plain", elos(plain)), ("joint", elos(joint)))
    }
    assert right["joint"] > right["plain"] + 0.01
