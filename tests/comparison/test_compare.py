from __future__ import annotations

from pathlib import Path

import pytest

from zelo.artifacts import read_table, table, write_table
from zelo.comparison.adaptive import Informative
from zelo.comparison.compare import compare
from zelo.comparison.graphs import Cycles
from zelo.errors import UserError


def write(folder: Path, candidates: dict[str, int], splits: dict[str, str]) -> tuple[Path, Path]:
    data, ranked = folder / "data", folder / "candidates"
    data.mkdir(parents=True)
    ranked.mkdir()
    write_table(
        data,
        "queries",
        table("queries", query_id=list(splits), text=list(splits), split=list(splits.values())),
    )
    rows = [(q, f"{q}-{i}", i + 1, -float(i)) for q, n in candidates.items() for i in range(n)]
    columns = dict(
        zip(("query_id", "doc_id", "rank", "score"), zip(*rows, strict=True), strict=True)
    )
    write_table(ranked, "candidates", table("candidates", **columns))
    return data, ranked


def compared(folder: Path, candidates: dict[str, int], splits: dict[str, str]) -> tuple[dict, list]:
    data, ranked = write(folder, candidates, splits)
    out = folder / "out"
    out.mkdir()
    counts = compare(
        out=out, data=data, candidates=ranked, sampler=Cycles(cycles=2), depth=5, seed=1
    )
    return dict(counts), read_table(out, "comparisons").to_pylist()


def test_only_training_queries_with_two_candidates_are_compared(tmp_path: Path) -> None:
    counts, rows = compared(
        tmp_path,
        {"many": 9, "one": 1, "tested": 9},
        {"many": "train", "one": "train", "none": "train", "tested": "test"},
    )
    assert {row["query_id"] for row in rows} == {"many"}
    assert {row[side] for row in rows for side in ("doc_a", "doc_b")} == {
        f"many-{i}" for i in range(5)
    }
    assert counts == {"comparisons": len(rows), "queries": 1, "queries_too_few_candidates": 2}


def test_a_new_query_does_not_change_anothers_pairs(tmp_path: Path) -> None:
    _, alone = compared(tmp_path / "1", {"b": 8}, {"b": "train"})
    _, beside = compared(tmp_path / "2", {"a": 8, "b": 8}, {"a": "train", "b": "train"})
    assert [row for row in beside if row["query_id"] == "b"] == alone


def judged(folder: Path, rows: list[dict], score: float) -> Path:
    """Judgments of comparisons, all with the same score."""
    folder.mkdir()
    columns = {
        name: [row[name] for row in rows] for name in ("query_id", "doc_a", "doc_b", "repeat")
    }
    same = {"judge": ["j"] * len(rows), "score": [score] * len(rows)}
    answered = {"status": ["answered"] * len(rows), "reasons": [""] * len(rows)}
    write_table(folder, "judgments", table("judgments", **columns, **same, **answered))
    return folder


def test_rounds_go_on_from_the_answers_and_a_query_that_stopped_stays_stopped(
    tmp_path: Path,
) -> None:
    data, ranked = write(tmp_path, {"a": 8, "b": 8}, {"a": "train", "b": "train"})
    sampler = Informative(comparisons=16, random_share=0, rounds=4, top=2)

    def asked(name: str, **earlier: Path) -> list[dict]:
        out = tmp_path / name
        out.mkdir()
        compare(out=out, data=data, candidates=ranked, sampler=sampler, depth=8, seed=1, **earlier)
        return read_table(out, "comparisons").to_pylist()

    first = asked("1")
    assert len(first) == 16
    one = judged(tmp_path / "j1", first, -0.2)
    second = asked("2", judgments_1=one)
    pairs = {(row["query_id"], frozenset((row["doc_a"], row["doc_b"]))) for row in first + second}
    assert len(pairs) == len(first) + len(second) > len(first)
    only_a = judged(tmp_path / "j2", [row for row in second if row["query_id"] == "a"], -0.2)
    assert {row["query_id"] for row in asked("3", judgments_1=one, judgments_2=only_a)} == {"a"}


def test_nothing_to_compare_is_said_before_a_judge_is_asked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of 2 training queries has two candidates"):
        compared(tmp_path, {"a": 1, "b": 0}, {"a": "train", "b": "train"})
