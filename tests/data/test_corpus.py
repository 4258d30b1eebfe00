"""Documents without labels: what is read of a folder, and what is said of the rest."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zelo.artifacts import read_table
from zelo.data.collection import load
from zelo.data.corpus import DocumentFolder
from zelo.data.passages import headings_of, split
from zelo.data.token_estimate import estimated_tokens
from zelo.errors import UserError

GUIDE = """---
title: "The guide"
---
Read me first.

# Installing

On Linux there is a package.

```sh
# this is no heading
make
```

## On other systems `win`

Build it from source.
"""


def documents(source: DocumentFolder) -> dict[str, tuple[str, str]]:
    """Id → title and text, once all are read; ids are said once."""
    rows = [row for part in source.load().documents for row in part.to_pylist()]
    found = {row["doc_id"]: (row["title"], row["text"]) for row in rows}
    assert len(found) == len(rows)
    return found


def notes(source: DocumentFolder) -> list[str]:
    collection = source.load()
    list(collection.documents)
    return list(collection.notes)


def test_markdown_is_split_where_its_sections_are(tmp_path: Path) -> None:
    (tmp_path / "guide").mkdir()
    (tmp_path / "guide" / "install.md").write_text(GUIDE, encoding="utf-8")
    found = documents(DocumentFolder(path=str(tmp_path), passage_tokens=20))
    titles = [title for title, _ in found.values()]
    assert list(found) == [f"guide/install.md#{n}" for n in range(1, len(found) + 1)]
    assert titles[0] == "The guide"
    assert "The guide: Installing" in titles
    assert titles[-1] == "The guide: On other systems win"
    assert [heading for _, _, heading in headings_of(GUIDE.split("---\n")[2])] == [
        "Installing", "On other systems win",
    ]  # fmt: skip


def test_each_kind_of_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "cold_fusion.txt").write_text("Nobody has seen it.", encoding="utf-8")
    (tmp_path / "wide.txt").write_text("Größe\r\nHöhe", encoding="utf-16")
    (tmp_path / "page.html").write_text(
        "<html><head><title>Birds</title><script>x=1</script></head><body><nav>Home</nav>"
        "<h2>Owls</h2><p>They <a href='y'>hunt</a> at night.</p></body></html>", encoding="utf-8",
    )  # fmt: skip
    with gzip.open(tmp_path / "items.jsonl.gz", "wt") as file:
        file.write(json.dumps({"id": "a7", "title": "Nails", "body": "of iron"}) + "\n")
        file.write(json.dumps({"id": "a8", "body": "word " * 300}) + "\n")
    pq.write_table(pa.table({"text": ["of brass"]}), tmp_path / "more.parquet")
    figure(tmp_path / "paper.pdf", "Boundary layers on wings")
    found = documents(DocumentFolder(path=str(tmp_path)))
    assert found["cold_fusion.txt#1"] == ("cold fusion", "Nobody has seen it.")
    assert found["wide.txt#1"][1] == "Größe\nHöhe"
    assert found["page.html#1"] == ("Birds: Owls", "## Owls\n\nThey hunt at night.")
    assert found["items.jsonl.gz#a7"] == ("Nails", "of iron")
    assert {"items.jsonl.gz#a8.1", "items.jsonl.gz#a8.2"} < found.keys()
    assert found["more.parquet#1"] == ("more", "of brass")
    assert "Boundary layers on wings" in found["paper.pdf#1"][1]


def figure(path: Path, words: str) -> None:
    """A PDF that holds some words."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(3, 1))
    page.text(0.1, 0.5, words)
    page.savefig(path)


def test_what_is_not_read_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "notes.txt").write_text("secret", encoding="utf-8")
    (tmp_path / "outside.txt").write_text("secret", encoding="utf-8")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "link").symlink_to(tmp_path)
    (folder / "a.txt").write_text("One sentence.", encoding="utf-8")
    (folder / "z").mkdir()
    (folder / "z" / "a.txt").write_text("One sentence.", encoding="utf-8")
    (folder / "empty.md").write_text("", encoding="utf-8")
    (folder / "blank.txt").write_text(" \n", encoding="utf-8")
    (folder / "latin.txt").write_bytes(b"caf\xe9")
    (folder / "binary.txt").write_bytes(b"a\0b")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    source = DocumentFolder(path=str(folder))
    assert list(documents(source)) == ["a.txt#1"]
    assert sorted(notes(source)) == [
        "files left out, damaged: 1, the first broken.pdf",
        "files left out, empty: 1, the first empty.md",
        "files left out, not UTF-8: 1, the first latin.txt",
        "files left out, not text: 1, the first binary.txt",
        "files left out, without text: 1, the first blank.txt",
        "files of kinds that are not read: 1 (.png 1)",
        "links that are not followed: 2, the first link",
        "passages left out, copies of others: 1",
        "passed over, since their names begin with a dot: 1, the first .git",
    ]
    before = source.fingerprint()
    (folder / "a.txt").write_text("Another sentence.", encoding="utf-8")
    assert source.fingerprint() != before


def test_the_documents_of_a_collection_stay_as_they_are(beir_folder: Path, tmp_path: Path) -> None:
    corpus = DocumentFolder(path=str(beir_folder))
    found = documents(corpus)
    assert len(found) == 32
    assert found["d0-apples"] == ("", "apples history about apple number 0")
    assert documents(DocumentFolder(path=str(beir_folder / "corpus.jsonl"))) == found
    assert "queries.jsonl is not read" in notes(corpus)[0]
    asked = DocumentFolder(
        path=str(beir_folder),
        queries=str(beir_folder / "queries.jsonl"),
        qrels=str(beir_folder / "qrels" / "test.tsv"),
    )
    assert asked.fingerprint() != corpus.fingerprint()
    counts = load(out=made(tmp_path / "out"), source=asked)
    assert counts["queries"] == {"train": 8, "test": 8}
    assert read_table(tmp_path / "out", "qrels").num_rows == 32
    assert load(out=made(tmp_path / "bare"), source=corpus)["queries"] == {}


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_queries_are_lines_of_a_file(beir_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "asked.txt").write_text("who invented apples\n\nwho\nwho\n", encoding="utf-8")
    source = DocumentFolder(path=str(beir_folder), queries=str(tmp_path / "asked.txt"))
    queries = source.load().queries.to_pylist()
    assert [(row["text"], row["split"]) for row in queries] == [
        ("who invented apples", "train"), ("who", "train"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"path": "nowhere"}, "nowhere: not found; data.path must be a folder of documents"),
        ({"path": "empty"}, "empty: no document in it; files of .txt, "),
        ({"path": "a.doc"}, "a.doc: not one of .txt"),
        ({"path": "twice"}, "one.jsonl:2: id 'one.jsonl#a' was used before, on line 1"),
        ({"path": "bad"}, "one.jsonl:1: no field text or contents; there are words"),
        ({"path": "b.txt", "queries": "no.txt"}, "no.txt: not found; data.queries and data.qrels"),
        ({"path": "b.txt", "qrels": "b.txt"}, "data.qrels: labels of which queries?"),
        ({"path": "b.txt", "queries": "none.txt"}, "none.txt: empty, at least one query is needed"),
    ],
)
def test_mistakes(
    options: dict[str, str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, lines in (("twice", '{"id": "a", "text": "b"}\n' * 2), ("bad", '{"words": "b"}\n')):
        made(tmp_path / name)
        (tmp_path / name / "one.jsonl").write_text(lines, encoding="utf-8")
    made(tmp_path / "empty")
    for name in ("a.doc", "b.txt"):
        (tmp_path / name).write_text("words", encoding="utf-8")
    (tmp_path / "none.txt").write_text("\n", encoding="utf-8")
    source = DocumentFolder(**options)
    with pytest.raises(UserError) as raised:
        source.fingerprint(), documents(source)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@given(st.text(max_size=400), st.booleans())
def test_pieces_are_where_they_say(text: str, markdown: bool) -> None:
    pieces = split(text, 20, markdown)
    assert all(text[start:].startswith(piece) for start, piece in pieces)
    assert all(estimated_tokens(piece) <= 22 for _, piece in pieces)
    kept = sum(character.isalnum() for _, piece in pieces for character in piece)
    assert kept == sum(map(str.isalnum, text))
