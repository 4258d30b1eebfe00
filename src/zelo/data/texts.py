"""Texts of a loaded collection by id, as retrievers, judges and models read them.

A document is read as its title and its text, joined by a space.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zelo.artifacts import Table, parquet_batches, read_table, table

PART = 10_000  # documents that are held at once


@dataclass(frozen=True)
class Corpus:
    """All documents of a collection, in its order, read in parts: never all of them at once.

    `left_out` has the index of the document that is not to be found for a query: the query's own
    text, or what it was written from.
    """

    ids: pa.Array  # strings
    source: Path | Table
    left_out: Mapping[str, int] = field(default_factory=dict)  # query id → index

    @classmethod
    def at(cls, data: Path) -> Corpus:
        """The documents of the loaded collection in a folder."""
        path = data / "documents.parquet"
        ids = [batch["doc_id"] for batch in parquet_batches(path, PART, ["doc_id"])]
        doc_ids = pa.chunked_array(ids, pa.string()).combine_chunks()
        left_out = documents_left_out(data)
        wanted = pa.array(left_out.values(), pa.string())
        indices = pc.index_in(wanted, doc_ids).to_pylist()
        return cls(doc_ids, path, dict(zip(left_out, indices, strict=True)))

    @classmethod
    def of(cls, documents: Mapping[str, str]) -> Corpus:
        """Documents in memory: id → text."""
        content = table(
            "documents",
            doc_id=list(documents),
            title=[""] * len(documents),
            text=list(documents.values()),
        )
        return cls(content["doc_id"].combine_chunks(), content)

    def __len__(self) -> int:
        return len(self.ids)

    def sample(self, n: int) -> list[str]:
        """About `n` texts from all over the collection."""
        if not isinstance(self.source, Path):
            chosen = range(0, len(self), max(len(self) // n, 1))
            return joined(self.source.take(pa.array(list(chosen)[:n], pa.int64())))
        file = pq.ParquetFile(self.source)
        groups = range(0, file.num_row_groups, max(file.num_row_groups // 20, 1))
        found: list[str] = []
        for group in groups:
            rows = file.read_row_group(group, columns=["title", "text"])
            found += joined(rows.slice(0, -(-n // len(groups))))
        return found

    def parts(self, size: int = PART) -> Iterator[list[str]]:
        """Texts, `size` at a time."""
        if isinstance(self.source, Path):
            batches = parquet_batches(self.source, size, ["title", "text"])
        else:
            batches = self.source.select(["title", "text"]).to_batches(size)
        for batch in batches:
            yield joined(batch)


def joined(rows: pa.RecordBatch | Table) -> list[str]:
    """Title and text of each row."""
    pairs = zip(rows["title"].to_pylist(), rows["text"].to_pylist(), strict=True)
    return [f"{title} {text}" if title else text for title, text in pairs]


def query_texts(data: Path, split: str | None = None) -> dict[str, str]:
    """Query id → text, of one split or of `all`, in the order of the collection."""
    queries = read_table(data, "queries")
    rows = zip(*(queries[name].to_pylist() for name in ("query_id", "text", "split")), strict=True)
    return {query_id: text for query_id, text, of in rows if split in (None, "all", of)}


def query_instructions(data: Path) -> dict[str, str]:
    """Query id → instruction, of the queries that have one: what makes a document relevant to it,
    beyond its text."""
    queries = read_table(data, "queries").select(["query_id", "instruction"])
    rows = queries.filter(pc.is_valid(queries["instruction"]))
    return dict(zip(*(rows[name].to_pylist() for name in rows.column_names), strict=True))


def told_with(data: Path) -> dict[str, Mapping[str, str]]:
    """What is given besides to those that score queries, where these have instructions."""
    instructions = query_instructions(data)
    return {"instructions": instructions} if instructions else {}


def distinct_instructions(data: Path) -> list[str | None]:
    """Each instruction of a collection's queries once; None where a query has none."""
    found: list[str | None] = read_table(data, "queries")["instruction"].unique().to_pylist()
    return found


def document_texts(data: Path, wanted: Set[str] | None = None) -> dict[str, str]:
    """Document id → text, of the `wanted` documents or of all, in the order of the collection."""
    if wanted is None:
        documents = read_table(data, "documents")
        return dict(zip(documents["doc_id"].to_pylist(), joined(documents), strict=True))
    found: dict[str, str] = {}
    ids = pa.array(sorted(wanted), pa.string())
    for batch in parquet_batches(data / "documents.parquet", PART):
        rows = batch.filter(pc.is_in(batch["doc_id"], ids))
        found |= zip(rows["doc_id"].to_pylist(), joined(rows), strict=True)
    return found


def privileged_texts(data: Path) -> dict[str, str] | None:
    """Document id → text that only simulated judges may read; None where there is none."""
    if not (data / "privileged.parquet").exists():
        return None
    privileged = read_table(data, "privileged")
    return dict(zip(privileged["doc_id"].to_pylist(), privileged["text"].to_pylist(), strict=True))


def documents_left_out(data: Path) -> dict[str, str]:
    """Query id → id of the document that is never its candidate: the query's own text, or what it
    was written from."""
    if not (data / "left_out.parquet").exists():
        return {}
    left_out = read_table(data, "left_out")
    columns = (left_out[name].to_pylist() for name in ("query_id", "doc_id"))
    return dict(zip(*columns, strict=True))


def sources_of_written(data: Path) -> dict[str, str]:
    """Written query id → id of the document that it was written from; only who must not learn from
    one query of a document and be tested on another asks for this. Empty where none was written."""
    if not (data / "written.parquet").exists():
        return {}
    written = read_table(data, "written", pc.field("status") == "kept")
    columns = (written[name].to_pylist() for name in ("query_id", "doc_id"))
    return dict(zip(*columns, strict=True))


def neighbourhoods_of_written(data: Path) -> dict[str, int]:
    """Written query id → its neighbourhood: the documents of this number in the table
    `neighbourhoods` are its candidates. Queries that have the first stage's are not in it."""
    if not (data / "neighbourhoods.parquet").exists():
        return {}
    wanted = (pc.field("status") == "kept") & pc.field("neighbourhood").is_valid()
    written = read_table(data, "written", wanted)
    columns = (written[name].to_pylist() for name in ("query_id", "neighbourhood"))
    return dict(zip(*columns, strict=True))


def documents_there(data: Path, wanted: Set[str]) -> set[str]:
    """Which of the `wanted` documents the collection has: labels may name others."""
    ids = pa.array(sorted(wanted), pa.string())
    found: set[str] = set()
    for batch in parquet_batches(data / "documents.parquet", PART, ["doc_id"]):
        found |= set(batch["doc_id"].filter(pc.is_in(batch["doc_id"], ids)).to_pylist())
    return found


def relevance_grades(data: Path, split: str | None = None) -> dict[str, dict[str, int]]:
    """Query id → document id → graded relevance, for the queries of one split or of `all`.

    Labels of documents that the collection does not have are kept: no ranking finds these.
    """
    wanted = query_texts(data, split)
    grades: dict[str, dict[str, int]] = {}
    qrels = read_table(data, "qrels")
    rows = zip(*(qrels[name].to_pylist() for name in qrels.column_names), strict=True)
    for query_id, doc_id, relevance in rows:
        if query_id in wanted:
            grades.setdefault(query_id, {})[doc_id] = relevance
    return grades


def labelled_queries(data: Path, split: str) -> dict[str, dict[str, int]]:
    """The grades of a split's queries that have a relevant document."""
    grades = relevance_grades(data, split)
    return {query_id: row for query_id, row in grades.items() if max(row.values()) > 0}
