"""What makes a document relevant beyond the query: of a collection, or of each query."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import write_beir

from zelo.config import describe
from zelo.data.beir import BeirFolder
from zelo.data.collection import load
from zelo.data.columns import Columns
from zelo.data.texts import distinct_instructions, query_instructions
from zelo.errors import UserError

RUBRIC = "Prefer what a beginner understands."
OWN = "Prefer what cites a source."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A collection without instructions."""
    queries = {"q1": "first", "q2": "an instruction manual"}
    return write_beir(tmp_path / "c", {"d1": "one"}, queries, {"test": [("q1", "d1", 1)]})


def loaded(source: BeirFolder, out: Path) -> Path:
    out.mkdir()
    load(out=out, source=source)
    return out


def test_without_any_all_is_as_it_was(folder: Path, tmp_path: Path) -> None:
    """Neither the fingerprint nor the table."""
    out = loaded(BeirFolder(path=str(folder)), tmp_path / "out")
    assert pq.read_schema(out / "queries.parquet").names == ["query_id", "text", "split"]
    assert query_instructions(out) == {}
    assert distinct_instructions(out) == [None]
    described = describe(BeirFolder(path=str(folder)))
    assert "instruction" not in described
    assert described["content"] == "b249be1fd35aeb1d"


def test_a_querys_own_goes_before_the_collections(folder: Path, tmp_path: Path) -> None:
    plain = describe(BeirFolder(path=str(folder)))
    rows = [
        {"_id": "q1", "text": "first", "Instruction": f" {OWN}\n"},
        {"_id": "q2", "text": "second", "Instruction": None},
    ]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = BeirFolder(path=str(folder), instruction=RUBRIC)
    out = loaded(source, tmp_path / "out")
    assert query_instructions(out) == {"q1": OWN, "q2": RUBRIC}
    assert distinct_instructions(loaded(BeirFolder(path=str(folder)), tmp_path / "own")) == [
        OWN, None,
    ]  # fmt: skip
    assert describe(source)["instruction"] == RUBRIC
    assert describe(source)["content"] != plain["content"]
    (folder / "queries.jsonl").unlink()
    pq.write_table(pa.Table.from_pylist(rows), folder / "queries.parquet")
    parquet = BeirFolder(path=str(folder), instruction=RUBRIC)
    assert query_instructions(loaded(parquet, tmp_path / "parquet")) == {"q1": OWN, "q2": RUBRIC}


def test_one_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / "queries.jsonl").write_text('{"_id": "q1", "text": "first", "instruction": ["a"]}\n')
    with pytest.raises(UserError, match=r"queries\.jsonl:1: field 'instruction' must be a string"):
        BeirFolder(path=str(folder)).load()


@pytest.mark.parametrize("form", ["jsonl", "tsv"])
def test_the_same_query_under_another_one_is_another_query(tmp_path: Path, form: str) -> None:
    rows = [("what", "yes", "no", RUBRIC), ("what", "no", "yes", OWN), ("what", "yes", "no", "")]
    names = ("query", "positive", "negative", "instruction")
    file = tmp_path / f"train.{form}"
    if form == "jsonl":
        file.write_text("".join(json.dumps(dict(zip(names, r, strict=True))) + "\n" for r in rows))
    else:
        file.write_text("".join("\t".join(row) + "\n" for row in (names, *rows)))
    queries = Columns(files={"train": str(file)}).load().queries
    assert queries["instruction"].to_pylist() == [RUBRIC, OWN, None]
    assert queries["query_id"].to_pylist()[2] == "q749ab2c0d06c42ae"  # as ever
    assert len(set(queries["query_id"].to_pylist())) == 3
