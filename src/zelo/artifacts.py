"""What lies on disk between the stages: schemas, and reads and writes that are whole or not at all.

Every table is Parquet with a fixed Arrow schema. A file is written under a temporary name and
renamed, so that a reader never sees half of it. Ids are strings and come back as they went in.
"""

from __future__ import annotations

import csv
import errno
import glob
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zelo.errors import UserError

Table: TypeAlias = pa.Table

TEXT, REAL, WHOLE = pa.string(), pa.float64(), pa.int32()

SCHEMAS: dict[str, pa.Schema] = {
    # load: `instruction` says what is relevant to a query beyond its text
    "queries": pa.schema({"query_id": TEXT, "text": TEXT, "split": TEXT, "instruction": TEXT}),
    "documents": pa.schema({"doc_id": TEXT, "title": TEXT, "text": TEXT}),
    "qrels": pa.schema({"query_id": TEXT, "doc_id": TEXT, "relevance": WHOLE}),
    "privileged": pa.schema({"doc_id": TEXT, "text": TEXT}),
    # load, queries: documents that are never candidates of a query
    "left_out": pa.schema({"query_id": TEXT, "doc_id": TEXT}),
    # queries: `written` has every draft, the document it was written from and what became of it
    "written": pa.schema(
        {
            "query_id": TEXT,
            "text": TEXT,
            "doc_id": TEXT,
            "kind": TEXT,
            "writer": TEXT,
            "status": TEXT,
            "neighbourhood": WHOLE,  # null: its candidates are those of the first stage
        }
    ),
    "neighbourhoods": pa.schema({"doc_id": TEXT, "neighbourhood": WHOLE}),
    # retrieve: `first_stage` has every ranking, `candidates` the one that is compared and reranked;
    # rank counts from 1
    "first_stage": pa.schema(
        {"system": TEXT, "query_id": TEXT, "doc_id": TEXT, "rank": WHOLE, "score": REAL}
    ),
    "candidates": pa.schema({"query_id": TEXT, "doc_id": TEXT, "rank": WHOLE, "score": REAL}),
    # compare, refine, cross: `doc_a` is shown first; which of the two that is was drawn at random.
    # `query_b` is the query of `doc_b` where it is another one than that of `doc_a`
    "comparisons": pa.schema(
        {"query_id": TEXT, "doc_a": TEXT, "doc_b": TEXT, "repeat": WHOLE, "query_b": TEXT}
    ),
    # compare, where blocks are drawn: documents in the order in which they are shown
    "blocks": pa.schema({"query_id": TEXT, "block": WHOLE, "doc_ids": pa.list_(TEXT)}),
    # judge: score in [−1, 1], −1 for doc_a, null where the judge failed or was not reached, which
    # `status` tells apart; repeat counts the times that a judge was asked before
    "judgments": pa.schema(
        {
            "query_id": TEXT,
            "doc_a": TEXT,
            "doc_b": TEXT,
            "repeat": WHOLE,
            "judge": TEXT,
            "score": REAL,
            "status": TEXT,
            "reasons": TEXT,
            "query_b": TEXT,
            "weight": REAL,
        }
    ),
    # judge, where blocks are ordered: `places` has a number for each of `doc_ids`, 0 for the best,
    # equal where they are tied, −1 for what is below the rest in no known order, null for what
    # nothing is known of; `relevant` of those that have a place are relevant at all
    "list_judgments": pa.schema(
        {
            "query_id": TEXT,
            "block": WHOLE,
            "judge": TEXT,
            "doc_ids": pa.list_(TEXT),
            "places": pa.list_(WHOLE),
            "relevant": WHOLE,
            "status": TEXT,
            "reasons": TEXT,
            "weight": REAL,
        }
    ),
    # rate: `slot_effects` where judges are modelled: what standing at a slot adds to a document
    "slot_effects": pa.schema({"judge": TEXT, "slot": WHOLE, "effect": REAL, "stderr": REAL}),
    # rate: `ratings` per document, `fits` and `query_biases` per query, `judges` per judge
    "ratings": pa.schema(
        {"query_id": TEXT, "doc_id": TEXT, "elo": REAL, "stderr": REAL, "target": REAL}
    ),
    "query_biases": pa.schema({"query_id": TEXT, "bias": REAL, "stderr": REAL}),
    "fits": pa.schema(
        {
            "query_id": TEXT,
            "documents": WHOLE,
            "comparisons": WHOLE,
            "unanswered": WHOLE,
            "components": WHOLE,
            "iterations": WHOLE,
            "converged": pa.bool_(),
        }
    ),
    "judges": pa.schema(
        {
            "judge": TEXT,
            "answers": WHOLE,
            "failed": WHOLE,
            "ties": WHOLE,
            "first": REAL,
            "agreement": REAL,
            "bias": REAL,
            "bias_stderr": REAL,
            "scale": REAL,
            "log_scale_stderr": REAL,
        }
    ),
    # train
    "losses": pa.schema({"step": WHOLE, "loss": REAL}),
    # evaluate
    "rankings": pa.schema(
        {"system": TEXT, "query_id": TEXT, "doc_id": TEXT, "rank": WHOLE, "score": REAL}
    ),
    "per_query": pa.schema({"system": TEXT, "query_id": TEXT, "metric": TEXT, "value": REAL}),
    "metrics": pa.schema(
        {"system": TEXT, "metric": TEXT, "value": REAL, "low": REAL, "high": REAL, "queries": WHOLE}
    ),
}


TEMPORARY = ".tmp"  # ends the name of a file that is being written
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
NO_SPACE = os.strerror(errno.ENOSPC)
# Columns that are null where they are not given, or not in a file
OPTIONAL = ("query_b", "weight", "instruction")
LEFT_OUT = ("instruction",)  # of these, those that no file has where all of them are null


def table(name: str, **columns: Any) -> Table:
    """Make a table of the schema called `name` from one sequence per column."""
    for column in OPTIONAL:
        if column in SCHEMAS[name].names and column not in columns:
            kind = SCHEMAS[name].field(column).type
            columns[column] = pa.nulls(len(next(iter(columns.values()))), kind)
    return pa.table(columns, schema=SCHEMAS[name])


def write_table(folder: Path, name: str, content: Table) -> Path:
    """Write `content` as `folder/name.parquet`, whole or not at all."""
    path = folder / f"{name}.parquet"
    content = content.cast(SCHEMAS[name])
    empty = [c for c in content.column_names if c in LEFT_OUT]
    empty = [column for column in empty if content[column].null_count == len(content)]
    with replacing(path) as temporary:
        pq.write_table(content.drop_columns(empty), temporary, compression="zstd")
    return path


def write_parts(folder: Path, name: str, parts: Iterable[Table]) -> int:
    """Write `folder/name.parquet` part by part, whole or not at all; rows written."""
    rows = 0
    with (
        replacing(folder / f"{name}.parquet") as temporary,
        pq.ParquetWriter(temporary, SCHEMAS[name], compression="zstd") as writer,
    ):
        for part in parts:
            writer.write_table(part.cast(SCHEMAS[name]))
            rows += part.num_rows
    return rows


def read_table(folder: Path, name: str, where: pc.Expression | None = None) -> Table:
    """Read `folder/name.parquet`, the rows `where` something holds or all; `UserError` where it is
    missing, damaged or of another schema."""
    path = folder / f"{name}.parquet"
    with reading(path):
        content = pq.read_table(path, filters=where)
    for column in OPTIONAL:
        if column in SCHEMAS[name].names and column not in content.schema.names:
            kind = SCHEMAS[name].field(column).type
            content = content.append_column(column, pa.nulls(len(content), kind))
    if content.schema.names != SCHEMAS[name].names:
        raise UserError(
            f"{path}: columns are {content.schema.names}, expected {SCHEMAS[name].names}"
        )
    return content


def parquet_batches(path: Path, size: int, columns: list[str] | None = None) -> Iterator[Any]:
    """Rows of a Parquet file, `size` at a time; `UserError` where it is missing or damaged."""
    with reading(path):
        yield from pq.ParquetFile(path).iter_batches(size, columns=columns)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say on one line that a file of the store is missing or damaged."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run the stage that writes it") from None
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{path}: cannot be read ({first}); delete its folder and rerun") from None


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def read_json(path: Path, *keys: str) -> Any:
    """Read JSON; `UserError` where the file is missing, not JSON, or not an object with `keys`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}); delete it and rerun") from None
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise UserError(f"{path}: damaged, no {', '.join(missing)} in it; delete it and rerun")
    return content


def write_text(path: Path, content: str) -> None:
    """Write `content` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write `rows` under `header`; `UserError` where `path` cannot be written."""
    try:
        with (
            replacing(path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file, lineterminator="\n").writerows([header, *rows])
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure of matplotlib; `UserError` where its kind is unknown or it cannot be."""
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=150, format=path.suffix.removeprefix(".") or "png")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: the figure cannot be written ({error})") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block succeeds."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{TEMPORARY}"):
        number = left.name.removesuffix(TEMPORARY).rpartition(".")[2]
        if number.isdigit() and not alive(int(number)):
            left.unlink(missing_ok=True)  # of a process that was killed
    try:
        with writing_below(path):
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def alive(process: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


@contextmanager
def writing_below(path: Path) -> Iterator[None]:
    """Say on one line that a disk is full or may not be written to, whatever a library makes of
    it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in NO_ROOM or NO_SPACE in str(error) or full(path):
            why = os.strerror(number if number in NO_ROOM and number else errno.ENOSPC)
            raise UserError(
                f"{path}: cannot be written ({why}); mend that and run the same command again"
            ) from None
        raise


def full(path: Path) -> bool:
    """Whether there is next to no room where `path` lies."""
    try:
        return shutil.disk_usage(path if path.is_dir() else path.parent).free < 65_536
    except OSError:
        return False
