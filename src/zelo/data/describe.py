"""`zelo data describe`: what a collection holds, and what looks wrong with it."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from zelo.data.collection import (
    NO_TRAINING,
    SPLITS,
    Collection,
    Data,
    UnknownDocuments,
    note_identical,
    notes_of,
    validate,
)
from zelo.data.token_estimate import estimated_tokens

SHORT = 3  # tokens; a document of fewer says little
LONG = 20_000


@dataclass
class Description:
    """Counts of a collection; lengths are estimated numbers of tokens."""

    name: str
    document_tokens: NDArray[np.int64]  # of each document
    query_tokens: dict[str, list[int]]  # by split
    labels: dict[str, list[int]]  # by split: relevant documents of each labelled query
    grades: Counter[int]
    warnings: list[str] = field(default_factory=list)
    instructions: Counter[str] = field(default_factory=Counter)  # queries of each


def describe(source: Data) -> Description:
    """Read a collection once, in parts."""
    collection = source.load()
    identical: list[str] = []
    ids: list[Any] = []
    lengths, texts = array("q"), array("q")  # of each document: number of tokens, hash of the text
    empty = 0
    for part in note_identical(collection, identical):
        ids.append(part["doc_id"])
        rows = zip(part["title"].to_pylist(), part["text"].to_pylist(), strict=True)
        for title, text in rows:
            whole = f"{title} {text}".strip()
            lengths.append(estimated_tokens(whole))
            empty += not whole
            texts.append(hash(whole))
    found = Description(
        collection.name, np.array(lengths, dtype=np.int64), {}, {},
        Counter(collection.qrels["relevance"].to_pylist()),
    )  # fmt: skip
    split_of = dict(zip(collection.queries["query_id"].to_pylist(),
                        collection.queries["split"].to_pylist(), strict=True))  # fmt: skip
    for text, split in zip(collection.queries["text"].to_pylist(), split_of.values(), strict=True):
        found.query_tokens.setdefault(split, []).append(estimated_tokens(text))
    told = collection.queries["instruction"].drop_null().to_pylist()
    found.instructions = Counter(told)
    relevant: Counter[str] = Counter()
    labelled: set[str] = set()
    for row in collection.qrels.to_pylist():
        labelled.add(row["query_id"])
        relevant[row["query_id"]] += row["relevance"] > 0
    for query_id in labelled:
        found.labels.setdefault(split_of[query_id], []).append(relevant[query_id])
    doc_ids = pa.chunked_array([chunk for column in ids for chunk in column.chunks], pa.string())
    validate(collection, doc_ids)
    found.warnings = [
        *notes_of(collection, UnknownDocuments.among(collection, doc_ids), identical),
        *warnings(collection, found, empty, len(texts) - len(np.unique(np.array(texts)))),
    ]
    return found


def warnings(collection: Collection, found: Description, empty: int, copies: int) -> list[str]:
    """What a reader should look at."""
    queries = collection.queries.to_pylist()
    by_text: dict[str, set[str]] = {}
    for row in queries:
        by_text.setdefault(" ".join(row["text"].lower().split()), set()).add(row["split"])
    distinct = {(" ".join(row["text"].lower().split()), row["instruction"]) for row in queries}
    shared = [text for text, splits in by_text.items() if len(splits) > 1]
    numbers = [
        (len(shared), f"queries stand in several splits: {shared[0]!r}" if shared else ""),
        (len(queries) - len(distinct), "queries repeat the text of another"),
        (sum(not row["text"].strip() for row in queries), "queries are empty"),
        (empty, "documents are empty"),
        (copies, "documents are copies of another: equal answers, of which one may be labelled"),
        (int((found.document_tokens < SHORT).sum()), f"documents have fewer than {SHORT} tokens"),
        (int((found.document_tokens > LONG).sum()), f"documents have more than {LONG:,} tokens"),
        (
            sum(n == 0 for counts in found.labels.values() for n in counts),
            "labelled queries have no relevant document: they score 0 whatever is ranked",
        ),
        (sum(n for grade, n in found.grades.items() if grade < 0), "labels are below 0"),
    ]
    looks_wrong = [f"{number:,} {what}" for number, what in numbers if number]
    if "train" not in found.query_tokens:
        looks_wrong.append(f"no query is left to train on: {NO_TRAINING}")
    if "test" not in found.labels:
        looks_wrong.append("no test query has labels: only a run up to training is possible")
    return looks_wrong


def show(found: Description) -> None:
    """Print a description."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 110, markup=False, highlight=False)
    table = Table(title=found.name, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(("", "number", "tokens: median", "95 %", "longest", "with labels",
                                "relevant each")):  # fmt: skip
        table.add_column(column, justify="right" if i else "left")
    table.add_row("documents", *lengths(found.document_tokens), "", "")
    for split in SPLITS:
        if split in found.query_tokens:
            counts = found.labels.get(split, [])
            each = f"{np.mean(counts):.1f}" if counts else "-"
            columns = lengths(np.array(found.query_tokens[split]))
            table.add_row(f"{split} queries", *columns, f"{len(counts):,}", each)
    console.print(table)
    grades = ", ".join(f"{grade}: {n:,}" for grade, n in sorted(found.grades.items()))
    console.print(f"labels by grade: {grades or 'none'}")
    if found.instructions:
        first, number = found.instructions.most_common(1)[0]
        console.print(
            f"instructions: {len(found.instructions):,}, of {found.instructions.total():,} queries;"
            f" the commonest, of {number:,}: {first!r:.100}"
        )
    for warning in found.warnings:
        console.print(f"! {warning}")


def lengths(tokens_N: NDArray[np.int64]) -> tuple[str, ...]:
    """Number, median, 95th percentile and maximum."""
    middle, high = np.percentile(tokens_N, [50, 95])
    return f"{len(tokens_N):,}", f"{middle:,.0f}", f"{high:,.0f}", f"{tokens_N.max():,}"
