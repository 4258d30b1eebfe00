"""Tables of comparisons by id, as the numbered comparisons that the solvers take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from zelo.artifacts import Table
from zelo.data.arrow import is_text
from zelo.errors import UserError
from zelo.rating.comparisons import ComparisonError, Comparisons, Reals, Wholes
from zelo.rating.kernels import number_documents

REQUIRED = ("query_id", "doc_a", "doc_b")
OPTIONAL = ("p", "score", "weight", "judge")


@dataclass(frozen=True)
class EncodedComparisons:
    """A table's comparisons; of its queries, those that have an answer are numbered."""

    query_ids: pa.Array  # of all queries, in order of first appearance
    answered: NDArray[np.bool_]  # (all queries,) whether a query has an answer: `Q` of them do
    unanswered: Wholes  # (all queries,) rows without an answer
    doc_ids: pa.Array  # (D,) of the documents of queries with answers
    comparisons: Comparisons  # (M,) the rows with an answer, in the order of their queries
    judge: Wholes  # (M,) index into `judges`
    judges: list[str]
    failed: Wholes  # (judges,) rows without an answer


def encode(table: Table, vote: str, where: str, first_row: int = 0) -> EncodedComparisons:
    """Number queries and documents of a table with columns `query_id`, `doc_a`, `doc_b`, and either
    `p` in [0, 1], P(a ≻ b), or `score` in [−1, 1], −1 for `doc_a`; null: no answer.

    `weight` ≥ 0 and `judge` are read where they are given. With `vote="sign"` an answer counts as
    1, ½ or 0. Raises `UserError` naming `where`, the row (counted on from `first_row`) and the
    query of a comparison that cannot be rated.
    """
    answer = "p" if "p" in table.column_names else "score"
    missing = [name for name in (*REQUIRED, answer) if name not in table.column_names]
    if missing:
        raise UserError(
            f"{where}: no column {', '.join(missing)}; there are {', '.join(table.column_names)}; "
            f"query_id, doc_a, doc_b and p or score are needed"
        )
    if "score" in table.column_names and answer == "p":
        raise UserError(f"{where}: both p and score are given; leave one of them out")
    for name in (*REQUIRED, *(["judge"] if "judge" in table.column_names else [])):
        if table[name].null_count:
            row = pc.index(table[name].is_null(), True).as_py()
            raise UserError(f"{where}: row {first_row + row}: {name} is empty")
    query, query_ids = in_order(*codes(table["query_id"], where, "query_id"))
    given, p = preference(table[answer], answer, vote, where)
    judge, judges = (
        in_order(*codes(table["judge"], where, "judge"))
        if "judge" in table.column_names
        else (np.zeros(len(table), np.int64), pa.array(["all"]))
    )
    both, documents = codes(
        pa.chunked_array([c for n in REQUIRED[1:] for c in text(table[n], where, n).chunks]),
        where,
        "doc_a, doc_b",
    )
    rows = np.flatnonzero(given)
    if (np.diff(query[rows]) < 0).any():
        rows = rows[np.argsort(query[rows], kind="stable")]
    unanswered = np.bincount(query[~given], minlength=len(query_ids))
    answered = np.zeros(len(query_ids), bool)
    answered[query[rows]] = True
    number = np.cumsum(answered) - 1

    i, j = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    found = np.empty(2 * len(rows), np.int64)
    a, b = both[: len(table)][rows], both[len(table) :][rows]
    total = number_documents(query[rows], a, b, len(documents), i, j, found)
    try:
        comparisons = Comparisons(number[query[rows]], i, j, p[rows], weights(table, where)[rows])
    except ComparisonError as error:
        raise UserError(
            f"{where}: row {first_row + rows[error.row]}, query "
            f"{query_ids[int(query[rows][error.row])].as_py()!r}: {error.problem}"
        ) from None
    return EncodedComparisons(
        query_ids=query_ids,
        answered=answered,
        unanswered=unanswered,
        doc_ids=documents.take(pa.array(found[:total])),
        comparisons=comparisons,
        judge=judge[rows],
        judges=judges.to_pylist(),
        failed=np.bincount(judge[~given], minlength=len(judges)),
    )


def codes(column: pa.ChunkedArray, where: str, name: str) -> tuple[Wholes, pa.Array]:
    """Each value's place in the list of distinct values, and that list as text."""
    merged = text(column, where, name).unify_dictionaries().combine_chunks()
    if isinstance(merged, pa.ChunkedArray):  # of no chunk at all
        return np.zeros(0, np.int64), pa.array([], pa.string())
    return merged.indices.to_numpy(zero_copy_only=False).astype(np.int64), merged.dictionary


def text(column: pa.ChunkedArray, where: str, name: str) -> pa.ChunkedArray:
    """A column of text as codes of a dictionary; `UserError` where it is of another type."""
    if not is_text(column.type):
        kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
        raise UserError(f"{where}: {name} must be text, found {kind}: quote ids")
    return column.cast(pa.dictionary(pa.int32(), pa.string()))


def in_order(code: Wholes, values: pa.Array) -> tuple[Wholes, pa.Array]:
    """Codes numbered anew in order of first appearance, and the values that do appear."""
    number, found = np.empty(len(code), np.int64), np.empty(2 * len(code), np.int64)
    zero = np.zeros(len(code), np.int64)
    count = number_documents(zero, code, code, len(values), number, number, found)
    return number, values.take(pa.array(found[:count]))


def preference(
    column: pa.ChunkedArray, name: str, vote: str, where: str
) -> tuple[NDArray[np.bool_], Reals]:
    """Which rows have an answer, and P(a ≻ b) of those that do."""
    try:
        column = column.cast(pa.float64())
    except pa.ArrowException:
        raise UserError(f"{where}: {name} must be a number, found {column.type}") from None
    given = ~np.asarray(column.is_null())
    p = np.asarray(column.fill_null(0.5 if name == "p" else 0.0))
    p = p if name == "p" else (1.0 - p) / 2.0
    return given, (np.sign(p - 0.5) + 1) / 2 if vote == "sign" else p


def weights(table: Table, where: str) -> Reals:
    """The column `weight`; 1 where there is none."""
    if "weight" not in table.column_names:
        return np.ones(len(table))
    try:
        return np.asarray(table["weight"].cast(pa.float64()).fill_null(1.0))
    except pa.ArrowException:
        raise UserError(f"{where}: weight must be a number, found {table['weight'].type}") from None
