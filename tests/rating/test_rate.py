from __future__ import annotations

from pathlib import Path

from zelo.artifacts import read_table, table, write_table
from zelo.rating.rate import Rating, rate


def test_a_comparison_that_every_judge_failed_is_not_a_tie(tmp_path: Path) -> None:
    rows = [("q", "a", "b", 0.5), ("q", "a", "c", None), ("lost", "a", "b", None)]
    columns = {
        "query_id": [r[0] for r in rows],
        "doc_a": [r[1] for r in rows],
        "doc_b": [r[2] for r in rows],
        "repeat": [0] * 3,
        "judge": ["j"] * 3,
        "score": [r[3] for r in rows],
        "status": ["answered", "failed", "failed"],
    }
    write_table(tmp_path, "judgments", table("judgments", **columns))
    rate(out=tmp_path, judgments=tmp_path, rating=Rating(), vote="soft")
    ratings = read_table(tmp_path, "ratings").to_pylist()
    assert [(r["query_id"], r["doc_id"]) for r in ratings] == [("q", "a"), ("q", "b")]
    assert ratings[0]["elo"] < 0 < ratings[1]["elo"]
    fits = {row["query_id"]: row for row in read_table(tmp_path, "fits").to_pylist()}
    assert fits["q"]["unanswered"] == fits["lost"]["unanswered"] == 1
    assert fits["lost"]["documents"] == 0
