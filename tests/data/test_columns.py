"""Triples and columns of contrastive training as a collection."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from zelo.data.columns import Columns
from zelo.errors import UserError

EXPECTED = {("what", "yes"): 1, ("what", "no"): 0, ("what", "never"): 0, ("who", "me"): 1}


def labels_of(source: Columns) -> dict[tuple[str, str], int]:
    collection = source.load()
    documents = {r["doc_id"]: r["text"] for r in pa.concat_tables(collection.documents).to_pylist()}
    queries = {row["query_id"]: row["text"] for row in collection.queries.to_pylist()}
    return {
        (queries[row["query_id"]], documents[row["doc_id"]]): row["relevance"]
        for row in collection.qrels.to_pylist()
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("triples.tsv", "what\tyes\tno\nwhat\tyes\tnever\nwho\tme\n"),
        (
            "label.tsv",
            "Query\tPassage\tLabel\nwhat\tyes\t1.0\nwhat\tno\t0\nwhat\tnever\t0\nwho\tme\t1\n",
        ),
        (
            "st.jsonl",
            '{"anchor": "what", "positive": "yes", "negative_1": "no", "negative_2": "never"}\n'
            '{"anchor": "who", "positive": "me"}\n',
        ),
        (
            "pairs.jsonl",
            '{"query": "what", "document": "yes", "label": 1}\n'
            '{"query": "what", "document": "no", "score": 0.0}\n'
            '{"query": "what", "passage": ["never", "yes"], "labels": [0, 0]}\n'
            '{"query": "who", "text": "me", "score": 1.0}\n',
        ),
        (
            "flag.jsonl",
            '{"query": "what", "pos": ["yes"], "neg": ["no", "never"]}\n'
            '{"query": "who", "pos": ["me"], "neg": []}\n',
        ),
        (
            "tevatron.jsonl",
            '{"query_id": "1", "query": "what",'
            ' "positive_passages": [{"docid": "7", "text": "yes"}],'
            ' "negative_passages": [{"docid": "8", "title": "", "text": "no"},'
            ' {"docid": "9", "title": null, "text": "never"}]}\n'
            '{"query": "who", "positive_passages": [{"text": "me"}], "negative_passages": []}\n',
        ),
    ],
)
def test_every_form_says_the_same(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    source = Columns(files={"train": str(path), "dev": None})
    assert labels_of(source) == EXPECTED
    assert set(source.load().queries["split"].to_pylist()) == {"train"}


def test_a_first_line_that_names_columns_is_no_query(tmp_path: Path) -> None:
    path = tmp_path / "triples.tsv"
    path.write_text("anchor\tpositive\tnegative\nwhat\tyes\tno\n", encoding="utf-8")
    assert labels_of(Columns(files={"train": str(path)})) == {("what", "yes"): 1, ("what", "no"): 0}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "t.tsv",
            "what\n",
            r"t\.tsv:1: expected query<TAB>positive<TAB>negative .* found 1 fields",
        ),
        ("t.jsonl", '{"q": "x"}\n', r"t\.jsonl:1: no field query or anchor .* there are q"),
        ("t.jsonl", '{"query": "x"}\n', r"t\.jsonl:1: no field document or passage"),
        ("t.jsonl", '{"query": "x", "text": "y", "label": "high"}\n', r":1: a number is needed"),
        ("t.jsonl", '{"query": "x", "text": ["y"], "labels": [1, 0]}\n', r":1: a number is needed"),
        ("t.jsonl", '{"query": "x", "text": "y", "score": 0.7}\n', r":1: labels must be whole"),
        ("t.jsonl", '{"query": 7.5, "positive": "y"}\n', r":1: field 'query' must be a string"),
        ("t.jsonl", '{"query": "x", "pos": ["y", 2.5]}\n', r":1: field 'pos' must be a string"),
        ("t.tsv", "anchor\tpositive\nx\ty\tz\n", r"t\.tsv:2: expected 2 fields, found 3"),
        ("t.tsv", "query\ttext\tlabel\nx\ty\t0.7\n", r"t\.tsv:2: score must be a whole number"),
        ("t.jsonl", "\n", r"t\.jsonl: empty"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        list(Columns(files={"train": str(path)}).load().documents)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.files\.training: no split"):
        Columns(files={"training": "x"}).load()
    with pytest.raises(UserError, match=r"nowhere: not found; it was named as the file of train"):
        Columns(files={"train": str(tmp_path / "nowhere")}).load()
    with pytest.raises(UserError, match="name at least one file"):
        Columns(files={"train": None}).load()


def test_a_title_is_part_of_a_passage(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"query": "q", "positive_passages": [{"title": "Apple", "text": "a fruit"}]}')
    assert labels_of(Columns(files={"train": str(path)})) == {("q", "Apple a fruit"): 1}


def test_lines_that_are_none_here_are_named(tmp_path: Path) -> None:
    """Carriage returns alone end lines in what some spreadsheets export: all of it is one line."""
    path = tmp_path / "old.tsv"
    path.write_bytes(b"what\tyes\tno\rwho\tme\tyou\r")
    with pytest.raises(UserError, match=r"old\.tsv: its lines end in carriage returns alone"):
        labels_of(Columns(files={"train": str(path)}))
    path.write_bytes(b"what\tyes\tno\r\nwho\tme\tyou\r\n")
    assert len(labels_of(Columns(files={"train": str(path)}))) == 4
