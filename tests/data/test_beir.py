from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import append, write_beir

from zelo.data.beir import BeirFolder
from zelo.data.collection import Collection, load
from zelo.data.describe import describe
from zelo.data.texts import identical_queries, relevance_grades
from zelo.errors import UserError


def whole(folder: Path) -> tuple[Collection, list[str]]:
    """The collection, and the ids of its documents, all of which are read."""
    collection = BeirFolder(path=str(folder)).load()
    return collection, [i for part in collection.documents for i in part["doc_id"].to_pylist()]


def small(folder: Path) -> Path:
    return write_beir(
        folder,
        {"d1": "one", "d2": "two"},
        {"q1": "first", "q2": "second", "q3": "third"},
        {"test": [("q2", "d1", 1)], "dev": [("q3", "d2", 2)]},
    )


def test_splits_come_from_the_qrels_and_queries_without_labels_are_for_training(
    tmp_path: Path,
) -> None:
    collection = BeirFolder(path=str(small(tmp_path / "c"))).load()
    assert collection.name == "c"
    rows = zip(
        collection.queries["query_id"].to_pylist(),
        collection.queries["split"].to_pylist(),
        strict=True,
    )
    assert dict(rows) == {"q1": "train", "q2": "test", "q3": "dev"}
    assert collection.qrels.num_rows == 2


def test_a_share_of_test_queries_is_chosen_by_id_alone(tmp_path: Path) -> None:
    ids = [f"q{n}" for n in range(200)]
    documents = {"d": "text"}
    folder = write_beir(
        tmp_path / "c", documents, dict.fromkeys(ids, "x"), {"test": [(i, "d", 1) for i in ids]}
    )
    splits = BeirFolder(path=str(folder), train_share=0.5).load().queries["split"].to_pylist()
    assert 70 < splits.count("train") < 130
    fewer = write_beir(
        tmp_path / "e",
        documents,
        dict.fromkeys(ids[::2], "x"),
        {"test": [(i, "d", 1) for i in ids[::2]]},
    )
    again = BeirFolder(path=str(fewer), train_share=0.5).load().queries["split"].to_pylist()
    assert again == splits[::2]


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    folder = small(tmp_path / "c")
    source = BeirFolder(path=str(folder))
    before = source.fingerprint()
    with (folder / "corpus.jsonl").open("a") as file:
        file.write('{"_id": "d3", "text": "three"}\n')
    assert source.fingerprint() != before


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("corpus.jsonl", "{", r"corpus\.jsonl:3: not JSON"),
        ("corpus.jsonl", "[]", r"corpus\.jsonl:3: expected an object, found list"),
        (
            "corpus.jsonl",
            '{"_id": 7, "text": ""}',
            r"corpus\.jsonl:3: field '_id' must be a string, found 7",
        ),
        (
            "corpus.jsonl",
            '{"_id": "d3"}',
            r"corpus\.jsonl:3: field 'text' must be a string, found nothing",
        ),
        (
            "corpus.jsonl",
            '{"_id": "d1", "text": ""}',
            r"corpus\.jsonl:3: id 'd1' was used before, on line 1",
        ),
        (
            "queries.jsonl",
            '{"_id": "q1", "text": ""}',
            r"queries\.jsonl:4: id 'q1' was used before",
        ),
        (
            "qrels/test.tsv",
            "q1 d1 1",
            r"test\.tsv:3: expected 3 fields separated by tabs .* found 1",
        ),
        (
            "qrels/test.tsv",
            "q1\td1\thigh",
            r"test\.tsv:3: score must be a whole number, found 'high'",
        ),
        ("qrels/test.tsv", "q2\td1\t0", r"'q2' and document 'd1' are labelled twice"),
        ("qrels/test.tsv", "q1\td1\t9999999999", r"test\.tsv:3: score 9999999999 is out of range"),
        (
            "corpus.jsonl",
            '{"_id": "d3", "text": "\\ud83d"}',
            r"corpus\.jsonl:3: .* half a character",
        ),
        ("qrels/test.tsv", "q3\td1\t1", r"query 'q3' has labels of dev too"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, name: str, line: str, message: str) -> None:
    folder = small(tmp_path / "c")
    with (folder / name).open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=message):
        whole(folder)


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    folder = small(tmp_path / "c")
    with (folder / "corpus.jsonl").open("ab") as file:
        file.write(b'{"_id": "d3", "text": "\xff"}\n')
    with pytest.raises(UserError, match=r"corpus\.jsonl:3: not UTF-8"):
        whole(folder)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"corpus\.jsonl: not found; data\.path="):
        BeirFolder(path=str(tmp_path)).fingerprint()


def test_a_collection_without_documents_or_queries_is_refused(tmp_path: Path) -> None:
    empty = write_beir(tmp_path / "a", {}, {"q1": "x"}, {})
    with pytest.raises(UserError, match=r"corpus\.jsonl: empty"):
        whole(empty)
    mute = write_beir(tmp_path / "b", {"d1": "x"}, {}, {})
    with pytest.raises(UserError, match=r"queries\.jsonl: empty"):
        whole(mute)


def test_marks_blank_lines_and_windows_line_ends_are_no_records(tmp_path: Path) -> None:
    folder = small(tmp_path / "c")
    content = (folder / "corpus.jsonl").read_bytes().replace(b"\n", b"\r\n\r\n")
    (folder / "corpus.jsonl").write_bytes(b"\xef\xbb\xbf" + content)
    assert whole(folder)[1] == ["d1", "d2"]


def test_gzipped_files_are_the_same_collection(tmp_path: Path) -> None:
    plain, packed = small(tmp_path / "c"), small(tmp_path / "d" / "c")
    for path in [*packed.glob("*.jsonl"), *packed.glob("qrels/*.tsv")]:
        with gzip.open(f"{path}.gz", "wb") as file:
            file.write(path.read_bytes())
        path.unlink()
    one, other = whole(plain), whole(packed)
    assert one[1] == other[1]
    assert one[0].queries.equals(other[0].queries)
    assert one[0].qrels.equals(other[0].qrels)
    (packed / "corpus.jsonl.gz").write_bytes((packed / "corpus.jsonl.gz").read_bytes()[:-12])
    with pytest.raises(UserError, match=r"corpus\.jsonl\.gz:\d: cannot be read"):
        whole(packed)


def test_documents_are_read_in_parts(tmp_path: Path) -> None:
    documents = {f"d{n}": f"text {n}" for n in range(25_000)}
    folder = write_beir(tmp_path / "c", documents, {"q": "x"}, {"train": [("q", "d24999", 1)]})
    sizes = [len(part) for part in BeirFolder(path=str(folder)).load().documents]
    assert sizes == [10_000, 10_000, 5_000]
    out = tmp_path / "out"
    out.mkdir()
    assert load(out=out, source=BeirFolder(path=str(folder)))["documents"] == 25_000


def test_a_renamed_split_is_another_collection(tmp_path: Path) -> None:
    folder = small(tmp_path / "c")
    before = BeirFolder(path=str(folder)).fingerprint()
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "train.tsv")
    assert BeirFolder(path=str(folder)).fingerprint() != before


def loaded(folder: Path, out: Path, **options: Any) -> dict[str, Any]:
    """What the stage `load` counts of a folder."""
    out.mkdir()
    return dict(load(out=out, source=BeirFolder(path=str(folder), **options)))


def test_labels_of_what_is_not_there_are_counted_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small(tmp_path / "c")
    append(folder / "qrels" / "test.tsv", "q2\tgone\t2", "q2\tlost\t1", "q9\td1\t1", "q9\td2\t0")
    counts = loaded(folder, tmp_path / "out")
    assert counts["labels"] == 4
    assert counts["labels_of_unknown_documents"] == 2
    assert counts["labels_of_unknown_queries"] == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert (
        "2 labels are left out: their 1 queries are not in queries.jsonl, the first 'q9'" in said[0]
    )
    assert "test.tsv:5" in said[0]
    assert "2 labels name 2 documents that are not there, the first 'gone' of query 'q2'" in said[1]
    # A relevant document that nobody finds counts in the ideal order, as in trec_eval.
    assert relevance_grades(tmp_path / "out") == {"q2": {"d1": 1, "gone": 2, "lost": 1},
                                                  "q3": {"d2": 2}}  # fmt: skip
    warnings = describe(BeirFolder(path=str(folder))).warnings
    assert [line for line in said if line.strip() not in warnings] == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q9\td1\t1", r"test\.tsv:3: query 'q9' is not in queries\.jsonl"),
        ("q1\td9\t1", r"test\.tsv:3: document 'd9' is not in corpus\.jsonl"),
    ],
)
def test_strict_refuses_labels_of_what_is_not_there(
    tmp_path: Path, line: str, message: str
) -> None:
    folder = small(tmp_path / "c")
    append(folder / "qrels" / "test.tsv", line)
    loaded(folder, tmp_path / "out")
    with pytest.raises(UserError, match=message):
        loaded(folder, tmp_path / "strict", strict=True)


def test_labels_of_another_collection_are_refused(tmp_path: Path) -> None:
    documents, queries = {"d1": "one"}, {"q1": "first"}
    other = write_beir(tmp_path / "a", documents, queries, {"test": [("x", "d1", 1)]})
    with pytest.raises(UserError, match=r"test\.tsv:2: query 'x' is not in .* nor is any other"):
        loaded(other, tmp_path / "1")
    other = write_beir(tmp_path / "b", documents, queries, {"test": [("q1", "x", 1)]})
    for call in (
        lambda: loaded(other, tmp_path / "2"),
        lambda: describe(BeirFolder(path=str(other))),
    ):
        with pytest.raises(UserError, match=r"test\.tsv:2: document 'x' is not in .*, nor"):
            call()


def test_queries_that_are_documents_are_found_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_beir(
        tmp_path / "c",
        {"a": "How do I cook  rice?", "b": "another text", "c": "of another case"},
        {"a": "how do I cook rice?", "b": "not that text", "c": "Title of another case", "q": "x"},
        {},
    )
    (folder / "corpus.jsonl").write_text(
        (folder / "corpus.jsonl").read_text().replace('"c", "title": ""', '"c", "title": "TITLE"')
    )
    counts = loaded(folder, tmp_path / "out")
    assert counts["queries_that_are_documents"] == 2
    assert identical_queries(tmp_path / "out") == ["a", "c"]
    said = capsys.readouterr().err
    assert said.count("2 queries are documents too, the first 'a'") == 1
    assert "data.drop_identical=false keeps them" in said
    assert (
        loaded(folder, tmp_path / "kept", drop_identical=False)["queries_that_are_documents"] == 2
    )
    assert identical_queries(tmp_path / "kept") == []
