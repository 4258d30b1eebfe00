"""Public collections by name, on local copies in their layouts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from zelo.data.hub import HubDataset, IrDataset
from zelo.errors import UserError

DOCUMENTS = [{"_id": "d1", "title": "T", "text": "one"}, {"_id": "d2", "title": "", "text": "two"}]
QUERIES = [{"_id": "q1", "text": "first"}, {"_id": "q2", "text": "second"}]
LABELS = [{"query-id": "q2", "corpus-id": "d1", "score": 2}]


def dataset(folder: Path, files: dict[str, tuple[str, list[dict[str, Any]]]]) -> Path:
    """A data set as it is downloaded: JSON lines, and a card that says which are which subset."""
    configs = []
    folder.mkdir()
    for subset, (split, rows) in files.items():
        name = f"{subset}-{split}.jsonl"
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        configs.append(
            f"- config_name: {subset}\n  data_files:\n  - split: {split}\n    path: {name}\n"
        )
    (folder / "README.md").write_text(f"---\nconfigs:\n{''.join(configs)}---\n")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def test_mteb_layout(tmp_path: Path) -> None:
    folder = dataset(
        tmp_path / "scifact",
        {
            "default": ("test", LABELS),
            "corpus": ("corpus", DOCUMENTS),
            "queries": ("queries", QUERIES),
        },
    )
    source = HubDataset(path=str(folder))
    collection = source.load()
    assert collection.name == "scifact"
    assert pa.concat_tables(collection.documents).to_pylist()[0] == {
        "doc_id": "d1", "title": "T", "text": "one",
    }  # fmt: skip
    assert [row["split"] for row in collection.queries.to_pylist()] == ["train", "test"]
    assert collection.qrels.to_pylist() == [{"query_id": "q2", "doc_id": "d1", "relevance": 2}]
    before = source.fingerprint()
    (folder / "queries-queries.jsonl").write_text('{"_id": "q2", "text": "changed"}\n')
    assert source.fingerprint() != before


def test_labels_of_their_own_data_set_as_beir_has_them(tmp_path: Path) -> None:
    texts = dataset(
        tmp_path / "x", {"corpus": ("corpus", DOCUMENTS), "queries": ("queries", QUERIES)}
    )
    qrels = dataset(tmp_path / "x-qrels", {"default": ("validation", LABELS)})
    source = HubDataset(path=str(texts), qrels_path=str(qrels))
    collection = source.load()
    before = source.fingerprint()
    (qrels / "default-validation.jsonl").write_text("")
    assert source.fingerprint() != before
    assert [row["split"] for row in collection.queries.to_pylist()] == ["train", "dev"]


def test_nanobeir_layout(tmp_path: Path) -> None:
    labels = [{"query-id": row["query-id"], "corpus-id": row["corpus-id"]} for row in LABELS]
    nano = "NanoSciFact"
    folder = dataset(
        tmp_path / "nano",
        {"corpus": (nano, DOCUMENTS), "queries": (nano, QUERIES), "qrels": (nano, labels)},
    )
    collection = HubDataset(path=str(folder), qrels="qrels", split=nano).load()
    assert collection.qrels.to_pylist()[0]["relevance"] == 1
    with pytest.raises(UserError, match=r"split 'NanoSciFact' is none of .* data\.split=NanoSci"):
        HubDataset(path=str(folder), qrels="qrels").load()


def test_mistakes_are_named(tmp_path: Path) -> None:
    folder = dataset(
        tmp_path / "x",
        {
            "corpus": ("corpus", [{"name": "d1", "text": "one"}]),
            "queries": ("queries", QUERIES),
            "default": ("test", [{"query-id": "q2", "corpus-id": "d1", "score": 0.5}]),
        },
    )
    with pytest.raises(UserError, match=r"row 0: score must be a whole number, found 0\.5"):
        HubDataset(path=str(folder)).load()
    labels = dataset(tmp_path / "labels", {"default": ("test", LABELS)})
    collection = HubDataset(path=str(folder), qrels_path=str(labels)).load()
    with pytest.raises(
        UserError, match=r"x/corpus/corpus: row 0: no field _id or id; there are name"
    ):
        list(collection.documents)
    with pytest.raises(UserError, match=r"data\.split=Nano: labels have test"):
        HubDataset(path=str(folder), qrels_path=str(labels), split="Nano").load()
    with pytest.raises(UserError, match=r"subset 'nothing' cannot be loaded \(ValueError"):
        HubDataset(path=str(folder), corpus="nothing").load()


def test_ir_datasets_by_id(tmp_path: Path) -> None:
    import ir_datasets

    for name, content in (
        ("docs.tsv", "d1\tone\nd2\ttwo\n"),
        ("queries.tsv", "q1\tfirst\nq2\tsecond\n"),
        ("qrels", "q2 0 d1 2\n"),
    ):
        (tmp_path / name).write_text(content)
    made = ir_datasets.create_dataset(
        docs_tsv=str(tmp_path / "docs.tsv"),
        queries_tsv=str(tmp_path / "queries.tsv"),
        qrels_trec=str(tmp_path / "qrels"),
    )
    name = "zelo-test/local"
    if name not in ir_datasets.registry:
        ir_datasets.registry.register(name, made)
    collection = IrDataset(ids={"test": name}).load()
    assert collection.name == "zelo-test-local"
    assert pa.concat_tables(collection.documents)["text"].to_pylist() == ["one", "two"]
    assert [row["split"] for row in collection.queries.to_pylist()] == ["train", "test"]
    assert collection.qrels.to_pylist() == [{"query_id": "q2", "doc_id": "d1", "relevance": 2}]
    with pytest.raises(UserError, match=r"data\.ids\.test=no/such: ir_datasets has no such id"):
        IrDataset(ids={"test": "no/such"}).load()


def test_titles_and_ids_that_are_numbers_or_lists(tmp_path: Path) -> None:
    texts = [{"_id": 1, "title": 1984, "text": "one"}, {"_id": 2, "title": None, "text": "two"}]
    lists = [{"_id": 3, "title": ["A", "B"], "text": "three"}]
    for name, rows, titles in (("x", texts, ["1984", ""]), ("y", lists, ["A B"])):
        folder = dataset(
            tmp_path / name,
            {
                "corpus": ("corpus", rows),
                "queries": ("queries", [{"_id": 7, "text": "first"}]),
                "default": ("test", [{"query-id": 7, "corpus-id": rows[0]["_id"], "score": 2.0}]),
            },
        )
        collection = HubDataset(path=str(folder)).load()
        assert pa.concat_tables(collection.documents)["title"].to_pylist() == titles
        label = {"query_id": "7", "doc_id": str(rows[0]["_id"]), "relevance": 2}
        assert collection.qrels.to_pylist() == [label]


def test_splits_that_are_not_known_are_named(tmp_path: Path) -> None:
    folder = dataset(
        tmp_path / "x",
        {"corpus": ("corpus", DOCUMENTS), "queries": ("queries", QUERIES), "a": ("test", LABELS)},
    )
    card = (folder / "README.md").read_text()
    for name, split in (("b", "validation"), ("c", "extra")):
        rows = [{**LABELS[0], "query-id": "q1"}] if name == "b" else LABELS
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        card = card.replace("path: a-test.jsonl\n", f"path: a-test.jsonl\n  - split: {split}\n"
                                                    f"    path: {name}.jsonl\n")  # fmt: skip
    (folder / "README.md").write_text(card)
    collection = HubDataset(path=str(folder), qrels="a").load()
    assert [row["split"] for row in collection.queries.to_pylist()] == ["dev", "test"]
    assert collection.notes == ["the labels' split extra is not read"]
