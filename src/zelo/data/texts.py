"""Texts of a loaded collection by id, as retrievers, judges and models read them."""

from __future__ import annotations

from pathlib import Path

from zelo.artifacts import read_table


def query_texts(data: Path, split: str | None = None) -> dict[str, str]:
    """Query id → text, of one split or of all, in the order of the collection."""
    queries = read_table(data, "queries")
    rows = zip(*(queries[name].to_pylist() for name in ("query_id", "text", "split")), strict=True)
    return {query_id: text for query_id, text, of in rows if split in (None, of)}


def document_texts(data: Path) -> dict[str, str]:
    """Document id → title and text joined by a space, in the order of the collection."""
    documents = read_table(data, "documents")
    rows = zip(*(documents[name].to_pylist() for name in documents.column_names), strict=True)
    return {doc_id: f"{title} {text}" if title else text for doc_id, title, text in rows}


def privileged_texts(data: Path) -> dict[str, str] | None:
    """Document id → text that simulated judges may read, where the collection has such."""
    if not (data / "privileged.parquet").exists():
        return None
    privileged = read_table(data, "privileged")
    return dict(zip(privileged["doc_id"].to_pylist(), privileged["text"].to_pylist(), strict=True))


def relevance_grades(data: Path, split: str | None = None) -> dict[str, dict[str, int]]:
    """Query id → document id → graded relevance, for the queries of one split or of all."""
    wanted = query_texts(data, split)
    grades: dict[str, dict[str, int]] = {}
    qrels = read_table(data, "qrels")
    rows = zip(*(qrels[name].to_pylist() for name in qrels.column_names), strict=True)
    for query_id, doc_id, relevance in rows:
        if query_id in wanted:
            grades.setdefault(query_id, {})[doc_id] = relevance
    return grades
