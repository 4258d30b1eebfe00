"""Files of preferences: Parquet or JSON lines."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zelo.artifacts import Table
from zelo.data.arrow import is_text, read_json_lines, reading, valid
from zelo.errors import UserError

IDS = ("query_id", "doc_a", "doc_b")


def read_preferences(path: Path) -> Table:
    """Rows of a file of preferences: ids, `score`, `judge` and `reasons`.

    Raises `UserError` naming the file and what is wrong with it.
    """
    rows = read_rows(path)
    missing = [name for name in IDS if name not in rows.column_names]
    given = [name for name in ("p", "score") if name in rows.column_names]
    if missing or len(given) != 1:
        raise UserError(
            f"{path}: query_id, doc_a, doc_b and either p or score are needed; there are "
            f"{', '.join(rows.column_names)}"
        )
    columns = {}
    for name in (*IDS, "judge", "reasons"):
        if name not in rows.column_names:
            continue
        column, kind = rows[name], rows[name].type
        if not (is_text(kind) or pa.types.is_null(kind)):
            hint = ": quote ids" if name in IDS else ""
            raise UserError(f"{path}: {name} must be text, found {kind}{hint}")
        columns[name] = column.cast(pa.string())
        if name in IDS and column.null_count:
            row = pc.index(column.is_null(), True).as_py()
            raise UserError(f"{path}: row {row}: {name} is empty")
    try:
        value = rows[given[0]].cast(pa.float64())
    except pa.ArrowException:
        found = rows[given[0]].type
        raise UserError(f"{path}: {given[0]} must be a number, found {found}") from None
    low, high = (0.0, 1.0) if given[0] == "p" else (-1.0, 1.0)
    inside = pc.and_kleene(pc.greater_equal(value, low), pc.less_equal(value, high))
    outside = pc.index(pc.fill_null(pc.invert(inside), False), True).as_py()
    if outside >= 0:
        raise UserError(
            f"{path}: row {outside}: {given[0]} is {value[outside].as_py()}, not between {low:g} "
            f"and {high:g}"
        )
    score = value if given[0] == "score" else pc.subtract(1.0, pc.multiply(value, 2.0))
    for name, otherwise in (("judge", "recorded"), ("reasons", "")):
        if name not in columns:
            columns[name] = pa.array([otherwise] * len(rows), pa.string())
    return pa.table({**columns, "score": score})


def read_rows(path: Path) -> Table:
    """A table in Parquet or JSON lines; `UserError` where the file is missing or neither."""
    path = existing(path)
    with reading(path):
        if path.name.endswith((".jsonl", ".jsonl.gz")):
            return read_json_lines(path, (*IDS, "judge", "reasons"))
        return valid(pq.read_table(path), path)


def existing(path: Path) -> Path:
    """The path, `~` expanded; `UserError` where there is no such file."""
    path = path.expanduser()
    if not path.is_file():
        raise UserError(f"{path}: not found; a file of preferences is needed")
    return path
