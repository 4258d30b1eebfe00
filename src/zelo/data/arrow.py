"""JSON lines and Parquet by Arrow, checked where Arrow guesses."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from zelo.artifacts import Table
from zelo.data.lines import plain
from zelo.errors import UserError

LONGEST_LINE = 2**24  # bytes


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Say what Arrow finds wrong with a file on one line."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason})") from None
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{path}: neither Parquet nor JSON lines ({first})") from None


def read_json_lines(path: Path, texts: tuple[str, ...]) -> Table:
    """A table of JSON lines; columns named in `texts` stay text where Arrow would read their values
    as times. Raises what `reading` catches."""
    from pyarrow import json

    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        first = next((line for line in file if line.strip()), b"").lstrip(b"\xef\xbb\xbf \t")
    if first[:1] != b"{":  # on other content Arrow's reader may hang
        raise UserError(f"{path}: the first line must be a JSON object, found {first[:40]!r}")
    options = json.ReadOptions(block_size=LONGEST_LINE)
    found = json.read_json(path, options)
    guessed = [
        name for name in found.column_names
        if name in texts and pa.types.is_temporal(found[name].type)
    ]  # fmt: skip
    if guessed:
        schema = pa.schema([(name, pa.string()) for name in guessed])
        found = json.read_json(path, options, json.ParseOptions(explicit_schema=schema))
    return valid(found, path)


def parquet_records(
    path: Path, wanted: Container[str], size: int = 1_000
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each row stands (`file:row`, from 1) and the row as a record of the columns whose plain
    names are `wanted`; `size` rows are read at once. Raises what `reading` catches."""
    import pyarrow.parquet as pq

    number = 0
    with reading(path):
        # Read in small pieces: a file may hold a whole corpus as one row group.
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)
        names = [n for n in file.schema_arrow.names if plain(n) in wanted]
        valid(file.schema_arrow.empty_table(), path)
        for batch in file.iter_batches(size, columns=names):
            batch.validate(full=True)
            for record in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", record


def valid(content: Table, path: Path) -> Table:
    """`content`, checked: every text is valid UTF-8, and no two columns have the same name."""
    content.validate(full=True)
    names = content.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{path}: column {', '.join(twice)} is there more than once")
    return content


def is_text(kind: Any) -> bool:
    """Whether an Arrow type is text, dictionary-encoded or not."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind in (pa.string(), pa.large_string(), pa.string_view())
