from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from zelo.artifacts import read_table, table, write_table
from zelo.rating.rate import Rating, rate


def write(folder: Path, rows: list[tuple[Any, ...]]) -> Path:
    """Judgments: query, doc_a, doc_b, judge, score; None: the judge failed."""
    folder.mkdir(exist_ok=True)
    columns = {
        "query_id": [r[0] for r in rows],
        "doc_a": [r[1] for r in rows],
        "doc_b": [r[2] for r in rows],
        "repeat": [0] * len(rows),
        "judge": [r[3] for r in rows],
        "score": [r[4] for r in rows],
        "reasons": [""] * len(rows),
        "status": ["failed" if r[4] is None else "answered" for r in rows],
    }
    write_table(folder, "judgments", table("judgments", **columns))
    return folder


def test_a_comparison_that_every_judge_failed_is_not_a_tie(tmp_path: Path) -> None:
    rows = [
        ("q", "a", "b", "j", 0.5),
        ("q", "a", "c", "j", None),
        ("lost", "a", "b", "j", None),
    ]
    rate(out=tmp_path, judgments=write(tmp_path, rows), rating=Rating(), vote="soft")
    ratings = read_table(tmp_path, "ratings").to_pylist()
    assert [(r["query_id"], r["doc_id"]) for r in ratings] == [("q", "a"), ("q", "b")]
    assert ratings[0]["elo"] < 0 < ratings[1]["elo"]
    fits = {row["query_id"]: row for row in read_table(tmp_path, "fits").to_pylist()}
    assert fits["q"]["unanswered"] == fits["lost"]["unanswered"] == 1
    assert fits["lost"]["documents"] == 0
    assert fits["q"]["components"] == 1
    (judge,) = read_table(tmp_path, "judges").to_pylist()
    assert (judge["answers"], judge["failed"], judge["first"]) == (1, 2, 0.0)


def test_judges_are_averaged_and_rounds_are_joined(tmp_path: Path) -> None:
    first = write(tmp_path / "1", [("q", "a", "b", "x", -1.0), ("q", "a", "b", "y", 0.0)])
    second = write(tmp_path / "2", [("q", "b", "c", "x", -0.5), ("q", "b", "c", "y", -0.5)])
    both = write(tmp_path / "3", [("q", "a", "b", "z", -0.5), ("q", "b", "c", "z", -0.5)])
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    rate(out=one, judgments_1=first, judgments_2=second, rating=Rating(), vote="soft")
    rate(out=two, judgments=both, rating=Rating(), vote="soft")
    assert read_table(one, "ratings").equals(read_table(two, "ratings"))
    ratings = {row["doc_id"]: row for row in read_table(one, "ratings").to_pylist()}
    assert ratings["a"]["elo"] > ratings["b"]["elo"] > ratings["c"]["elo"]
    judges = {row["judge"]: row for row in read_table(one, "judges").to_pylist()}
    assert judges["x"]["agreement"] == 1.0
    assert judges["y"]["ties"] == 1
    assert judges["x"]["bias"] is None


def test_judges_are_modelled_where_asked(tmp_path: Path) -> None:
    """One judge always leans to what it is shown first; the Elos do not."""
    rng = np.random.default_rng(0)
    s = rng.normal(0, 1.5, 20)
    rows = []
    for a, b in ((a, b) for a in range(20) for b in range(20) if a != b):
        for judge, lean in (("fair", 0.0), ("leaning", 2.0)):
            p = expit(s[a] - s[b] + lean + rng.normal(0, 0.2))
            rows.append(("q", f"d{a}", f"d{b}", judge, float(1 - 2 * p)))
    options = Rating(joint_judges=True)
    rate(out=tmp_path, judgments=write(tmp_path, rows), rating=options, vote="soft")
    judges = {row["judge"]: row for row in read_table(tmp_path, "judges").to_pylist()}
    assert judges["leaning"]["bias"] > 0.5 > 0.1 > abs(judges["fair"]["bias"])
    assert judges["leaning"]["first"] > 0.7
    assert judges["fair"]["scale"] == pytest.approx(1, abs=0.2)
    elo = {row["doc_id"]: row["elo"] for row in read_table(tmp_path, "ratings").to_pylist()}
    assert np.corrcoef([elo[f"d{k}"] for k in range(20)], s)[0, 1] > 0.99
