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
from zelo.progress import say
from zelo.store import stage

SPLITS = ("train", "dev", "test")
MAX_GRADE = 2**31 - 1  # what the schema of labels holds

# What to do where there is no query, or every one is a test query.
NO_TRAINING = (
    "queries=auto or extractive, with judges that need no labels, writes some; "
    "data.train_share=0.5 trains on half of the tested ones; or add queries to the collection, "
    "which need no labels; stages=[load,retrieve] does without"
)

T = TypeVar("T")


@dataclass(frozen=True)
class Collection:
    """Queries, documents and relevance labels, as tables of the schemas of the same names.

    Documents come in parts, and can be read once only, so that they need not fit in memory. Labels
    may name documents that are not there, which count as relevant documents that no system finds;
    they may not name queries that are not there. `privileged` holds text about documents that
    simulated judges may read and models may not.
    """

    name: str
    documents: Iterable[Table]
    queries: Table
    qrels: Table
    privileged: Table | None = None
    labels_left_out: int = 0  # of queries that are not there
    notes: Sequence[str] = ()  # what else a reader should know of the source
    drop_identical: bool = True  # a query's own text is not a candidate for it
    may_lack_queries: bool = False  # they are written from the documents


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


@stage(version=3)
def load(*, out: Path, source: Data) -> Mapping[str, Any]:
    """Stage `load`: write the collection's tables into `out`.

    The table `left_out` holds the queries whose own text is in the corpus under their id.
    """
    collection = source.load()
    identical: list[str] = []
    documents = write_parts(out, "documents", note_identical(collection, identical))
    ids = pq.read_table(out / "documents.parquet", columns=["doc_id"])["doc_id"]
    validate(collection, ids)
    unknown = UnknownDocuments.among(collection, ids)
    write_table(out, "queries", collection.queries)
    write_table(out, "qrels", collection.qrels)
    if collection.privileged is not None:
        write_table(out, "privileged", collection.privileged)
    if identical and collection.drop_identical:
        write_table(out, "left_out", table("left_out", query_id=identical, doc_id=identical))
    for note in notes_of(collection, unknown, identical):
        say(note)
    splits = Counter(collection.queries["split"].to_pylist())
    instructed = len(collection.queries) - collection.queries["instruction"].null_count
    return {
        "documents": documents,
        "queries": dict(splits),
        "labels": collection.qrels.num_rows,
        "labels_of_unknown_documents": unknown.labels,
        "labels_of_unknown_queries": collection.labels_left_out,
        "queries_that_are_documents": len(identical),
        **({"queries_with_instruction": instructed} if instructed else {}),
    }


def note_identical(collection: Collection, identical: list[str]) -> Iterator[Table]:
    """The documents' parts; queries whose own text is among them are added to `identical`."""
    names = ("query_id", "text")
    texts = dict(zip(*(collection.queries[name].to_pylist() for name in names), strict=True))
    for part in collection.documents:
        for row, doc_id in enumerate(part["doc_id"].to_pylist()):
            if doc_id in texts and is_text_of(texts[doc_id], *part.slice(row, 1).to_pylist()):
                identical.append(doc_id)
        yield part


def is_text_of(query: str, document: Mapping[str, str]) -> bool:
    """Whether a query is a document's text, with its title or without; case and white space do not
    count."""
    title, text = document["title"], document["text"]
    return words(query) in (words(text), words(f"{title} {text}"))


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return text.lower().split()


def validate(collection: Collection, doc_ids: Any) -> None:
    """Raise `UserError` where no stage could work with the collection. (Sources themselves report
    what is wrong in a line of a file.)

    `doc_ids` is an Arrow array of the documents' ids.
    """
    query_ids = collection.queries["query_id"]
    for column, ids in (("doc_id", doc_ids), ("query_id", query_ids)):
        if len(ids) == 0 and (column == "doc_id" or not collection.may_lack_queries):
            raise UserError(f"{collection.name}: {column} occurs nowhere; the collection is empty")
        if pc.count_distinct(ids).as_py() < len(ids):
            counts = pc.value_counts(ids)
            twice = counts.filter(pc.greater(counts.field("counts"), 1))[0]["values"]
            raise UserError(f"{collection.name}: {column} {twice.as_py()!r} occurs more than once")
    unknown_queries = labels_not_in(collection.qrels, "query_id", query_ids)
    if len(unknown_queries):
        first = unknown_queries["query_id"][0].as_py()
        raise UserError(f"{collection.name}: qrels name an unknown query_id {first!r}")


def labels_not_in(qrels: Table, column: str, ids: Any) -> Table:
    """Labels whose id in a column is not among `ids`, an Arrow array."""
    return qrels.filter(pc.invert(pc.is_in(qrels[column], ids.combine_chunks())))


class UnknownDocuments(NamedTuple):
    """Labels that name documents that are not there."""

    labels: int
    documents: int
    first: str

    @classmethod
    def among(cls, collection: Collection, doc_ids: Any) -> UnknownDocuments:
        """Count them; `doc_ids` is an Arrow array of the ids that are there."""
        rows = labels_not_in(collection.qrels, "doc_id", doc_ids)
        first = rows.slice(0, 1).to_pylist()
        where = f"{first[0]['doc_id']!r} of query {first[0]['query_id']!r}" if first else ""
        return cls(len(rows), pc.count_distinct(rows["doc_id"]).as_py(), where)


def notes_of(
    collection: Collection, unknown: UnknownDocuments, identical: Sequence[str]
) -> list[str]:
    """What a reader should know of a collection's source, a line each."""
    notes = list(collection.notes)
    if unknown.labels:
        notes.append(
            f"{unknown.labels:,} labels name {unknown.documents:,} documents that are not there, "
            f"the first {unknown.first}: they count as documents that no ranking has, as in "
            f"trec_eval (data.strict=true refuses them)"
        )
    if identical:
        done = "are left out of their candidates" if collection.drop_identical else "stay"
        switch = "false keeps them" if collection.drop_identical else "true leaves them out"
        notes.append(
            f"{len(identical):,} queries are documents too, the first {identical[0]!r}: documents "
            f"that have a query's id and text {done} (data.drop_identical={switch})"
        )
    return notes


class Label(NamedTuple):
    """One relevance label, and its `file:line`."""

    query_id: str
    doc_id: str
    relevance: int
    where: str


class Query(NamedTuple):
    """One query of a source, and what makes a document relevant to it, where that is said."""

    query_id: str
    text: str
    instruction: str = ""


def title_of(data: Data) -> str:
    """A collection's name, or its folder's, or that of its kind of source."""
    path = getattr(data, "path", None)
    return data.name or (Path(path).resolve().name if path else type(data).__name__)


class Document(NamedTuple):
    """One document of a source."""

    doc_id: str
    title: str
    text: str


class LabelledSource(Component):
    """What sources of queries and labels have in common: how queries are divided into splits.

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

    instruction: str | None = option(
        None,
        "what makes a document relevant, for judges and for models that read instructions: of "
        "queries that bring none of their own; null: the query alone says it",
        added=True,
    )
    strict: bool = option(False, "refuse labels that name a query or document that is not there")
    drop_identical: bool = option(
        True, "leave out of a query's candidates the document that has its id and its text"
    )

    def collection(
        self,
        name: str,
        documents: Iterable[Document],
        queries: Sequence[Query | tuple[str, str]],
        labels: Mapping[str, Iterable[Label]],
        sources: tuple[str, str],
        notes: Sequence[str] = (),
    ) -> Collection:
        """Put a collection together from documents, queries and labels by split.

        `sources` are the names of the files of documents and of queries, for messages. Labels of
        queries that are not there are left out. Raises `UserError` where a label is given twice,
        where a query has labels in two splits, or where no label names what is there; with
        `strict`, where a single label does not.
        """
        asked = [Query(*query) for query in queries]
        query_ids = {query.query_id for query in asked}
        if "" in query_ids:
            raise UserError(f"{sources[1]}: a query has an empty id")
        grades: dict[tuple[str, str], int] = {}
        split_of: dict[str, str] = {}
        named: dict[str, str] = {}  # document → where it was named first
        unknown_queries: dict[str, str] = {}  # query that is not there → where it was named first
        left_out = 0
        for split, rows in labels.items():
            for query_id, doc_id, relevance, where in rows:
                if abs(relevance) > MAX_GRADE:
                    raise UserError(f"{where}: score {relevance} is out of range")
                if query_id not in query_ids:
                    if self.strict:
                        raise UserError(f"{where}: query {query_id!r} is not in {sources[1]}")
                    unknown_queries.setdefault(query_id, where)
                    left_out += 1
                    continue
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
        if unknown_queries:
            first, where = next(iter(unknown_queries.items()))
            if not grades:
                raise UserError(
                    f"{where}: query {first!r} is not in {sources[1]}, nor is any other that has "
                    f"labels: do labels and queries belong together?"
                )
            notes = [
                *notes,
                f"{left_out:,} labels are left out: their {len(unknown_queries):,} queries are not "
                f"in {sources[1]}, the first {first!r} ({where}; data.strict=true refuses them)",
            ]
        kept: list[tuple[Query, str]] = []
        trained = 0
        for query in asked:
            split = split_of.get(query.query_id, "train")
            if split == "test" and hash_share(query.query_id) < self.train_share:
                split = "train"
            trained += split == "train"
            if split != "train" or self.train_queries is None or trained <= self.train_queries:
                kept.append((query, split))
        kept_ids = {query.query_id for query, _ in kept}
        common = self.instruction or ""
        grades = {key: grade for key, grade in grades.items() if key[0] in kept_ids}
        return Collection(
            name=self.name or name,
            documents=document_tables(documents, named, sources[0], self.strict),
            queries=table(
                "queries",
                query_id=[query.query_id for query, _ in kept],
                text=[query.text for query, _ in kept],
                split=[split for _, split in kept],
                instruction=[
                    query.instruction.strip() or common.strip() or None for query, _ in kept
                ],
            ),
            qrels=table(
                "qrels",
                query_id=[query_id for query_id, _ in grades],
                doc_id=[doc_id for _, doc_id in grades],
                relevance=list(grades.values()),
            ),
            labels_left_out=left_out,
            notes=notes,
            drop_identical=self.drop_identical,
        )


def document_tables(
    documents: Iterable[Document], named: Mapping[str, str], source: str, strict: bool
) -> Iterator[Table]:
    """Documents in parts; `UserError` at the end where none of those that labels name was among
    them or, with `strict`, where one was not."""
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
        if strict:
            raise UserError(f"{where}: document {doc_id!r} is not in {source}")
        if len(missing) == len(named):
            raise UserError(
                f"{where}: document {doc_id!r} is not in {source}, nor is any other that has a "
                f"label: do labels and documents belong together?"
            )


def parts(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


def hash_share(query_id: str) -> float:
    """A number in [0, 1) from the hash of an id, the same on every machine."""
    return int.from_bytes(hashlib.sha256(query_id.encode()).digest()[:8], "big") / 2**64
