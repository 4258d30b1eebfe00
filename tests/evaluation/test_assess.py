"""A pass against the ensemble, by numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zelo.artifacts import read_json, table, write_table
from zelo.evaluation.assess import ASSESSMENT, assess
from zelo.rating.rate import Rating, rate

PAIRS = [("a", "b"), ("a", "c"), ("b", "c")]


def judgments(folder: Path, rows: list[tuple[str, str, str, str, float]]) -> Path:
    """A folder with judgments: query, documents, judge, score."""
    folder.mkdir()
    q, a, b, judge, score = map(list, zip(*rows, strict=True))
    write_table(
        folder,
        "judgments",
        table(
            "judgments", query_id=q, doc_a=a, doc_b=b, repeat=[0] * len(q), judge=judge,
            score=score, status=["answered"] * len(q), reasons=[""] * len(q),
        ),
    )  # fmt: skip
    return folder


def assessed(tmp_path: Path, **folders: Any) -> dict[str, dict[str, float]]:
    (tmp_path / "out").mkdir()
    assess(out=tmp_path / "out", rating=Rating(), vote="soft", seed=0, **folders)
    found: dict[str, dict[str, float]] = read_json(tmp_path / "out" / ASSESSMENT)
    return found


def test_agreement_is_of_unanimous_pairs_that_were_not_learned(tmp_path: Path) -> None:
    asked = [("q", a, b, "x", -0.5) for a, b in PAIRS]
    asked += [("q", a, b, "y", -0.5 if (a, b) != ("b", "c") else 0.5) for a, b in PAIRS]
    asked += [("r", a, b, judge, 0.9) for a, b in PAIRS for judge in "xy"]
    answered = [("q", "b", "a", "m", 0.2), ("q", "a", "c", "m", 0.2), ("q", "b", "c", "m", 0.2)]
    answered += [("r", a, b, "m", s) for (a, b), s in zip(PAIRS, [0.1, 0.1, -0.1], strict=True)]
    folders = {
        "ensemble": judgments(tmp_path / "asked", asked),
        "distilled": judgments(tmp_path / "answered", answered),
        "judgments": judgments(tmp_path / "learned", [("r", "b", "a", "x", -1.0)]),
    }
    (tmp_path / "ratings").mkdir()
    rate(out=tmp_path / "ratings", rating=Rating(), vote="soft", judgments=folders["ensemble"])
    found = assessed(tmp_path, ratings=tmp_path / "ratings", **folders)
    # q: (a, b) right although shown the other way round, (a, c) wrong, (b, c) not unanimous;
    # r: (a, b) was learned from, (a, c) right, (b, c) wrong
    assert found["agreement"]["value"] == 0.5
    assert found["agreement"]["queries"] == 2
    assert found["elo_mse"]["value"] == pytest.approx(0, abs=1e-12)  # the same judgments
    assert found["elo_tau"]["value"] == pytest.approx(1)


def test_elos_are_compared_over_the_same_documents_whatever_their_mean(tmp_path: Path) -> None:
    asked = judgments(tmp_path / "asked", [("q", a, b, "x", -0.5) for a, b in PAIRS])
    (tmp_path / "dense").mkdir()
    rate(out=tmp_path / "dense", rating=Rating(), vote="soft", judgments=asked)
    from zelo.artifacts import read_table

    elo = read_table(tmp_path / "dense", "ratings")["elo"].to_numpy()
    (tmp_path / "ratings").mkdir()
    other = [*(elo * np.array([1, 1, 1]) + 3.0 + np.array([0.3, -0.3, 0.0])), -9.0]  # d: unasked
    write_table(
        tmp_path / "ratings",
        "ratings",
        table("ratings", query_id=["q"] * 4, doc_id=list("abcd"), elo=other,
              stderr=[0.1] * 4, target=other),
    )  # fmt: skip
    found = assessed(
        tmp_path, ensemble=asked, distilled=asked, ratings=tmp_path / "ratings", judgments=asked
    )
    assert found["elo_mse"]["value"] == pytest.approx((0.09 + 0.09) / 3)
    assert found["agreement"]["value"] is None  # all pairs were learned from
