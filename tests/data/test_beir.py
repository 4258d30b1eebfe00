from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import append, write_beir

from zelo.artifacts import read_table
from zelo.data.beir import BeirFolder
from zelo.data.collection import Collection, load
from zelo.data.describe import describe
from zelo.data.texts import documents_left_out, relevance_grades
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
            '{"_id": 7.5, "text": ""}',
            r"corpus\.jsonl:3: field '_id' must be a string, found 7\.5",
        ),
        (
            "corpus.jsonl",
            '{"_id": true, "text": ""}',
            r"corpus\.jsonl:3: field '_id' must be a string, found True",
        ),
        (
            "corpus.jsonl",
            '{"_id": "d3"}',
            r"corpus\.jsonl:3: no field text or contents; there are _id",
        ),
        (
            "corpus.jsonl",
            '{"_id": "d3", "text": "", "title": {"a": 1}}',
            r"corpus\.jsonl:3: field 'title' must be a string",
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
        ("qrels/test.tsv", "\td1\t1", r"test\.tsv:3: an id is empty"),
        (
            "qrels/test.tsv",
            "q1\td1\t1.5",
            r"test\.tsv:3: score must be a whole number, found '1\.5'",
        ),
        (
            "qrels/test.tsv",
            "q1\td1\tnan",
            r"test\.tsv:3: score must be a whole number, found 'nan'",
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
    assert documents_left_out(tmp_path / "out") == {"a": "a", "c": "c"}
    said = capsys.readouterr().err
    assert said.count("2 queries are documents too, the first 'a'") == 1
    assert "data.drop_identical=false keeps them" in said
    assert (
        loaded(folder, tmp_path / "kept", drop_identical=False)["queries_that_are_documents"] == 2
    )
    assert documents_left_out(tmp_path / "kept") == {}


def test_numbers_are_read_as_pandas_writes_them(tmp_path: Path) -> None:
    import pandas as pd

    folder = tmp_path / "c"
    (folder / "qrels").mkdir(parents=True)
    corpus = pd.DataFrame({"_id": [1606628, 2], "title": [1984, None], "text": ["one", "two"]})
    corpus.to_json(folder / "corpus.jsonl", orient="records", lines=True)
    pd.DataFrame({"_id": [7, 8], "text": ["first", 42]}).to_json(
        folder / "queries.jsonl", orient="records", lines=True
    )
    labels = pd.DataFrame({"query-id": [7, 8], "corpus-id": [1606628, 2], "score": [1.0, 2.0]})
    labels.to_csv(folder / "qrels" / "test.tsv", sep="\t", index=False)
    loaded(folder, tmp_path / "out")
    assert relevance_grades(tmp_path / "out") == {"7": {"1606628": 1}, "8": {"2": 2}}
    documents = read_table(tmp_path / "out", "documents").to_pylist()
    assert [row["title"] for row in documents] == ["1984.0", ""]  # a column with a gap is of floats
    assert read_table(tmp_path / "out", "queries")["text"].to_pylist() == ["first", "42"]
    labels.to_csv(folder / "qrels" / "test.tsv", sep="\t")  # with the index in front
    loaded(folder, tmp_path / "again")
    assert relevance_grades(tmp_path / "again") == relevance_grades(tmp_path / "out")


def test_a_number_and_the_same_as_text_are_one_id(tmp_path: Path) -> None:
    folder = small(tmp_path / "c")
    append(folder / "corpus.jsonl", '{"_id": 1, "text": "x"}', '{"_id": "1", "text": "y"}')
    with pytest.raises(UserError, match=r"corpus\.jsonl:4: id '1' was used before, on line 3"):
        whole(folder)


LABELS = [("q2", "d1", 1), ("q2", "d2", 0), ("q3", "d2", 2)]


@pytest.mark.parametrize(
    "content",
    [
        "query-id\tcorpus-id\tscore\nq2\td1\t1\nq2\td2\t0\nq3\td2\t2\n",
        "q2\td1\t1\nq2\td2\t0\nq3\td2\t2\n",
        "q2 0 d1 1\nq2 0 d2 0\nq3 0 d2 2\n",
        "q2\tQ0\td1\t1\nq2\tQ0\td2\t0\nq3\tQ0\td2\t2.0\n",
        "query_id\titeration\tdoc_id\trelevance\nq2\t0\td1\t1\nq2\t0\td2\t0\nq3\t0\td2\t2\n",
        "doc_id\tlabel\tqid\nd1\t1\tq2\nd2\t0\tq2\nd2\t2\tq3\n",
        "\tquery-id\tcorpus-id\tscore\n0\tq2\td1\t1\n1\tq2\td2\t0\n2\tq3\td2\t2.0\n",
        "Frage\tDokument\tNote\nq2\td1\t1\nq2\td2\t0\nq3\td2\t2\n",
        "q2 d1 1\nq2 d2 0\nq3 d2 2\n",
    ],
)
def test_labels_in_other_columns(tmp_path: Path, content: str) -> None:
    folder = small(tmp_path / "c")
    (folder / "qrels" / "dev.tsv").unlink()
    (folder / "qrels" / "test.tsv").write_text(content)
    rows = BeirFolder(path=str(folder)).load().qrels.to_pylist()
    assert [tuple(row.values()) for row in rows] == LABELS


def test_labels_in_json_lines(tmp_path: Path) -> None:
    """As MTEB's older sets have them."""
    folder = small(tmp_path / "c")
    for path in (folder / "qrels").iterdir():
        path.unlink()
    (folder / "qrels" / "test.jsonl").write_text(
        "".join(
            json.dumps({"query-id": q, "corpus-id": d, "score": float(grade)}) + "\n"
            for q, d, grade in LABELS
        )
    )
    rows = BeirFolder(path=str(folder)).load().qrels.to_pylist()
    assert [tuple(row.values()) for row in rows] == LABELS


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev", "Validation"])
def test_splits_by_their_usual_names(tmp_path: Path, name: str) -> None:
    folder = small(tmp_path / "c")
    (folder / "qrels" / "dev.tsv").rename(folder / "qrels" / f"{name}.tsv")
    (folder / "qrels" / "all.tsv").write_text("q1\td1\t1\n")
    (folder / "qrels" / "test.csv").write_text("q1,d1,1\n")
    (folder / "qrels" / "test.old.tsv").write_text("q1\td1\t1\n")
    (folder / "qrels" / "test.tsv.gz").write_bytes(b"")
    (folder / "corpus.parquet").write_bytes(b"")
    collection = BeirFolder(path=str(folder)).load()
    rows = collection.queries.to_pylist()
    assert {row["query_id"]: row["split"] for row in rows}["q3"] == "dev"
    assert [note.partition(":")[0] for note in collection.notes] == [
        "corpus.parquet is not read, since corpus.jsonl is", "qrels/all.tsv is not read",
        "qrels/test.csv is not read", "qrels/test.old.tsv is not read",
        "qrels/test.tsv.gz is not read",
    ]  # fmt: skip
    assert set(collection.notes) < set(describe(BeirFolder(path=str(folder))).warnings)


def test_two_files_of_a_split_are_refused(tmp_path: Path) -> None:
    folder = small(tmp_path / "c")
    (folder / "qrels" / "val.tsv").write_text("q1\td1\t1\n")
    with pytest.raises(UserError, match=r"qrels: dev\.tsv and val\.tsv are both labels of dev"):
        BeirFolder(path=str(folder)).fingerprint()


def as_parquet(plain: Path, folder: Path, id_name: str) -> Path:
    """A folder as the hub ships sets: Parquet, documents in two parts."""

    def write(path: str, rows: list[dict[str, Any]]) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), folder / path, row_group_size=1)

    def records(name: str) -> list[dict[str, Any]]:
        rows = map(json.loads, (plain / f"{name}.jsonl").read_text().splitlines())
        return [{id_name: row.pop("_id"), **row} for row in rows]

    documents = records("corpus")
    for part in (0, 1):
        write(f"corpus/corpus-0000{part}-of-00002.parquet", documents[part::2])
    write("queries/queries-00000-of-00001.parquet", records("queries"))
    for split in ("test", "dev"):
        rows = [
            line.split("\t") for line in (plain / f"qrels/{split}.tsv").read_text().splitlines()
        ]
        write(
            f"qrels/{'validation' if split == 'dev' else split}-00000-of-00001.parquet",
            [{"query-id": q, "corpus-id": d, "score": float(s)} for q, d, s in rows[1:]],
        )
    return folder


@pytest.mark.parametrize("id_name", ["_id", "id"])
def test_parquet_as_the_hub_ships_it_is_the_same_collection(tmp_path: Path, id_name: str) -> None:
    plain = small(tmp_path / "c")
    packed = as_parquet(plain, tmp_path / "d" / "c", id_name)
    one, other = whole(plain), whole(packed)
    assert one[1] == other[1]
    assert one[0].queries.equals(other[0].queries)
    assert one[0].qrels.equals(other[0].qrels)
    before = BeirFolder(path=str(packed)).fingerprint()
    (packed / "corpus" / "corpus-00001-of-00002.parquet").unlink()
    with pytest.raises(UserError, match=r"corpus-00001-of-00002\.parquet: not found, of 2 parts 1"):
        BeirFolder(path=str(packed)).fingerprint()
    (packed / "corpus" / "corpus-00000-of-00002.parquet").rename(packed / "corpus.parquet")
    assert BeirFolder(path=str(packed)).fingerprint() != before
    assert whole(packed)[1] == ["d1"]
    (packed / "corpus.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match=r"corpus\.parquet: neither Parquet nor"):
        whole(packed)


def test_a_document_that_is_there_twice_in_parquet_is_named(tmp_path: Path) -> None:
    packed = as_parquet(small(tmp_path / "c"), tmp_path / "d", "_id")
    pq.write_table(
        pa.table({"_id": ["d2", "d1"], "text": ["two", "again"]}),
        packed / "corpus" / "corpus-00001-of-00002.parquet",
    )
    with pytest.raises(
        UserError,
        match=r"00001-of-00002\.parquet:2: id 'd1' was used before, .*00000-of-00002\.parquet:1",
    ):
        whole(packed)


def test_a_corpus_alone_says_what_can_be_done(tmp_path: Path) -> None:
    folder = small(tmp_path / "c")
    (folder / "queries.jsonl").unlink()
    with pytest.raises(UserError, match=r"queries\.jsonl: not found; write .* data=corpus"):
        BeirFolder(path=str(folder)).fingerprint()


MEASURE = """
import sys
from pathlib import Path
from zelo.data.beir import BeirFolder
from zelo.data.collection import load

load(out=Path(sys.argv[2]), source=BeirFolder(path=sys.argv[1]))
# Not `resource`, which has the peak of the process that began this one.
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line for line in lines if line.startswith("VmHWM")).split()[1])
"""


def peak(folder: Path, form: str, documents: int) -> int:
    """Most memory that the stage `load` takes for documents of a thousand letters, in kB."""
    write_beir(folder, {}, {"q": "x"}, {})
    rows = [{"_id": f"d{n}", "text": f"{n:05} " * 167} for n in range(documents)]
    if form == "jsonl":
        append(folder / "corpus.jsonl", *map(json.dumps, rows))
    else:
        (folder / "corpus.jsonl").unlink()
        pq.write_table(  # one group of rows, as pandas writes it
            pa.Table.from_pylist(rows), folder / "corpus.parquet",
            compression="none", use_dictionary=False,
        )  # fmt: skip
    out = folder / "out"
    out.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(folder), str(out)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_corpus_is_never_held_whole(tmp_path: Path, form: str) -> None:
    """80 MB more of texts do not take as much more memory."""
    more, fewer = (peak(tmp_path / str(n), form, n) for n in (100_000, 20_000))
    assert more - fewer < 60_000
