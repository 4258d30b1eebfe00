"""A collection in memory, what makes one valid, and the stage that writes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pyarrow.compute as pc

from zelo.artifacts import Table, write_table
from zelo.errors import UserError
from zelo.store import stage

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True)
class Collection:
    """Queries, documents and relevance labels, as tables of the schemas of the same names.

    `privileged` holds text about documents that simulated judges may read and models may not.
    """

    name: str
    documents: Table
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
    validate(collection)
    write_table(out, "documents", collection.documents)
    write_table(out, "queries", collection.queries)
    write_table(out, "qrels", collection.qrels)
    if collection.privileged is not None:
        write_table(out, "privileged", collection.privileged)
    splits = Counter(collection.queries["split"].to_pylist())
    return {
        "documents": collection.documents.num_rows,
        "queries": dict(splits),
        "labels": collection.qrels.num_rows,
    }


def validate(collection: Collection) -> None:
    """Raise `UserError` on what no stage could work with; sources report file and line first."""
    for table, column in ((collection.documents, "doc_id"), (collection.queries, "query_id")):
        if table.num_rows == 0:
            raise UserError(f"{collection.name}: {column} occurs nowhere; the collection is empty")
        counts = pc.value_counts(table[column])
        repeated = [row["values"].as_py() for row in counts if row["counts"].as_py() > 1]
        if repeated:
            raise UserError(f"{collection.name}: {column} {repeated[0]!r} occurs more than once")
    for column, known in (
        ("doc_id", collection.documents["doc_id"]),
        ("query_id", collection.queries["query_id"]),
    ):
        unknown = set(collection.qrels[column].to_pylist()) - set(known.to_pylist())
        if unknown:
            raise UserError(f"{collection.name}: qrels name an unknown {column} {min(unknown)!r}")
    splits = set(collection.queries["split"].to_pylist())
    if "train" not in splits:
        raise UserError(
            f"{collection.name}: no query is left to train on; every query belongs to "
            f"{' or '.join(sorted(splits))}"
        )
