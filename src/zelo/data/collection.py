"""A collection, what makes one valid, and the stage that writes it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import pyarrow.compute as pc
import pyarrow.parquet as pq

from zelo.artifacts import Table, table, write_parts, write_table
from zelo.config import Component, option
from zelo.data.texts import PART
from zelo.errors import UserError
from zelo.store import stage

SPLITS = ("train", "dev", "test")
MAX_GRADE = 2**31 - 1  # what the schema of labels holds

T = TypeVar("T")


@dataclass(frozen=True)
class Collection:
    """Queries, documents and relevance labels, as tables of the schemas of the same names.

    Documents come in parts, once, so that they need not fit in memory. `privileged` holds text
    about documents that simulated judges may read and models may not.
    """

    name: str
    documents: Iterable[Table]
    queries: Table
    qrels: Table
    privileged: Table | None = None


@runtime_checkable
class Data(Protocol):
    """A source of one collection (`conf/data/`)."""

    name: str

    def fingerprint(self) -> str:
        """Digest of the source's content, quick enough to take on every run."""
        ...

    def load(self) -> Collection:
        """Read it; raise `UserError` naming file and line where it is malformed."""
        ...


@stage(version=1)
def load(*, out: Path, source: Data) -> Mapping[str, Any]:
    """Stage `load`: write the collection's tables into `out`."""
    collection = source.load()
    documents = write_parts(out, "documents", collection.documents)
    validate(collection, pq.read_table(out / "documents.parquet", columns=["doc_id"])["doc_id"])
    write_table(out, "queries", collection.queries)
    write_table(out, "qrels", collection.qrels)
    if collection.privileged is not None:
        write_table(out, "privileged", collection.privileged)
    splits = Counter(collection.queries["split"].to_pylist())
    return {
        "documents": documents,
        "queries": dict(splits),
        "labels": collection.qrels.num_rows,
    }


def validate(collection: Collection, doc_ids: Any) -> None:
    """Raise `UserError` on what no stage could work with; sources report file and line first.

    `doc_ids` is an Arrow array of the documents' ids.
    """
    query_ids = collection.queries["query_id"]
    for column, ids in (("doc_id", doc_ids), ("query_id", query_ids)):
        if len(ids) == 0:
            raise UserError(f"{collection.name}: {column} occurs nowhere; the collection is empty")
        if pc.count_distinct(ids).as_py() < len(ids):
            counts = pc.value_counts(ids)
            twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"]
            raise UserError(f"{collection.name}: {column} {twice.as_py()!r} occurs more than once")
        named = collection.qrels[column]
        unknown = named.filter(pc.invert(pc.is_in(named, ids.combine_chunks())))
        if len(unknown):
            raise UserError(
                f"{collection.name}: qrels name an unknown {column} {unknown[0].as_py()!r}"
            )


class Label(NamedTuple):
    """One relevance label, and where it stands (`file:line`)."""

    query_id: str
    doc_id: str
    relevance: int
    where: str


class Document(NamedTuple):
    """One document of a source."""

    doc_id: str
    title: str
    text: str


class LabelledSource(Component):
    """What sources of queries and labels have in common: how queries fall into splits.

    A query belongs to the split whose labels name it; one that no labels name is for training.
    """

    name: str | None = option(None, "what the collection is called in reports; null: its source")
    train_queries: int | None = option(None, "use only so many training queries", ge=1)
    train_share: float = option(
        0.0,
        "share of the test queries, chosen by a hash of their id, to train on instead",
        ge=0,
        lt=1,
    )

    def collection(
        self,
        name: str,
        documents: Iterable[Document],
        queries: Sequence[tuple[str, str]],
        labels: Mapping[str, Iterable[Label]],
        sources: tuple[str, str],
    ) -> Collection:
        """Put a collection together from documents, queries (id, text) and labels by split.

        `sources` say where documents and queries come from, for messages. Raises `UserError` where
        a label is given twice, of a query in two splits, or names what there is not.
        """
        query_ids = {query_id for query_id, _ in queries}
        if "" in query_ids:
            raise UserError(f"{sources[1]}: a query has an empty id")
        grades: dict[tuple[str, str], int] = {}
        split_of: dict[str, str] = {}
        named: dict[str, str] = {}  # document → where it was named first
        for split, rows in labels.items():
            for query_id, doc_id, relevance, where in rows:
                if abs(relevance) > MAX_GRADE:
                    raise UserError(f"{where}: score {relevance} is out of range")
                if query_id not in query_ids:
                    raise UserError(f"{where}: query {query_id!r} is not in {sources[1]}")
                if (query_id, doc_id) in grades:
                    raise UserError(
                        f"{where}: query {query_id!r} and document {doc_id!r} are labelled twice"
                    )
                if split_of.setdefault(query_id, split) != split:
                    raise UserError(
                        f"{where}: query {query_id!r} has labels of {split_of[query_id]} too; a "
                        f"query may belong to one split only, or it would be tested on after "
                        f"training"
                    )
                grades[query_id, doc_id] = relevance
                named.setdefault(doc_id, where)
        kept: list[tuple[str, str, str]] = []
        trained = 0
        for query_id, text in queries:
            split = split_of.get(query_id, "train")
            if split == "test" and hash_share(query_id) < self.train_share:
                split = "train"
            trained += split == "train"
            if split != "train" or self.train_queries is None or trained <= self.train_queries:
                kept.append((query_id, text, split))
        kept_ids = {query_id for query_id, _, _ in kept}
        grades = {key: grade for key, grade in grades.items() if key[0] in kept_ids}
        return Collection(
            name=self.name or name,
            documents=document_tables(documents, named, sources[0]),
            queries=table(
                "queries",
                query_id=[query_id for query_id, _, _ in kept],
                text=[text for _, text, _ in kept],
                split=[split for _, _, split in kept],
            ),
            qrels=table(
                "qrels",
                query_id=[query_id for query_id, _ in grades],
                doc_id=[doc_id for _, doc_id in grades],
                relevance=list(grades.values()),
            ),
        )


def document_tables(
    documents: Iterable[Document], named: Mapping[str, str], source: str
) -> Iterator[Table]:
    """Documents in parts; `UserError` at the end where a label's document was not among them."""
    missing = dict(named)
    empty = True
    for part in parts(documents, PART):
        empty = False
        for document in part:
            if not document.doc_id:
                raise UserError(f"{source}: a document has an empty id ({document.text[:40]!r})")
            missing.pop(document.doc_id, None)
        columns = zip(*part, strict=True)
        yield table("documents", **dict(zip(Document._fields, columns, strict=True)))
    if empty:
        raise UserError(f"{source}: empty, at least one record is needed")
    for doc_id, where in missing.items():
        raise UserError(f"{where}: document {doc_id!r} is not in {source}")


def parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def hash_share(query_id: str) -> float:
    """Place of an id in [0, 1), the same on every machine."""
    return int.from_bytes(hashlib.sha256(query_id.encode()).digest()[:8], "big") / 2**64
