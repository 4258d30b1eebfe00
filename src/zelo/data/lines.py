"""Lines and JSON records of text files, plain or gzipped; errors name file and line."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from zelo.errors import UserError

T = TypeVar("T")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file that are not blank, counted from 1, without their line ends.

    A byte order mark is no part of the text; a file whose name ends in `.gz` is decompressed.
    Raises `UserError` naming file and line.
    """
    number = 0
    try:
        with binary(path) as file:
            for number, line in decoded(file, str(path)):  # `number` is used below
                yield number, line
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except (EOFError, zlib.error, OSError) as error:
        raise UserError(f"{path}:{number + 1}: cannot be read ({error})") from None


def binary(path: Path) -> gzip.GzipFile | BinaryIO:
    """A file opened for its bytes, decompressed where its name ends in `.gz`."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def decoded(file: Iterable[bytes], name: str) -> Iterator[tuple[int, str]]:
    """Lines of an open file; see `numbered_lines`."""
    for number, raw in enumerate(file, start=1):
        if number == 1 and b"\r" in raw.rstrip(b"\r\n") and not raw.endswith(b"\n"):
            raise UserError(
                f"{name}: its lines end in carriage returns alone, and would be read as one: "
                f"tr '\\r' '\\n' mends that"
            )
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UserError(f"{name}:{number}: not UTF-8 ({error.reason})") from None
        if line.strip():
            yield number, line


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSON-lines file with their line numbers."""
    for number, line in numbered_lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}:{number}: not JSON ({error})") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}:{number}: expected an object, found {type(record).__name__}")
        yield number, record


def plain(name: str) -> str:
    """A field's name in the form in which names are compared: `Query-ID` is `query_id`."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def text_field(record: dict[str, Any], field: str, where: str, optional: bool = False) -> str:
    """A field that must be a string of valid characters; "" for an optional one that is missing.

    A whole number becomes its digits: some tools export ids and titles as numbers. `where` is
    `file:line`.
    """
    value = record.get(field)
    if value is None and optional:
        return ""
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        found = repr(value) if field in record else "nothing"
        raise UserError(f"{where}: field {field!r} must be a string, found {found}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: field {field!r} holds half a character (a lone surrogate)"
        ) from None
    return value


def title_field(record: dict[str, Any], where: str) -> str:
    """The field `title`: text, a number, or a list of such; "" where there is none."""
    value = record.get("title")
    if value is None or isinstance(value, str):
        return text_field(record, "title", where, optional=True)
    parts = value if isinstance(value, list | tuple) else [value]
    found = []
    for part in parts:
        if isinstance(part, float):
            part = None if math.isnan(part) else repr(part)
        found.append(text_field({"title": part}, "title", where, optional=True))
    return " ".join(part for part in found if part)


def unique(make: Callable[[], Iterable[tuple[str, T]]], key: Callable[[T], str]) -> Iterator[T]:
    """The items of `make()`, which yields each with its `file:line`; `UserError` where two have the
    same id.

    This is noticed at the end, since only a hash of eight bytes is kept of each id; the items are
    then made a second time to find the two.
    """
    hashes = array("q")
    for _, item in make():
        hashes.append(hash(key(item)))
        yield item
    values, counts = np.unique(np.frombuffer(hashes, dtype=np.int64), return_counts=True)
    suspect = set(values[counts > 1].tolist())
    seen: dict[str, str] = {}
    for where, item in make() if suspect else ():
        if hash(key(item)) in suspect and seen.setdefault(key(item), where) != where:
            file, _, first = seen[key(item)].rpartition(":")
            place = f"on line {first}" if file == where.rpartition(":")[0] else seen[key(item)]
            raise UserError(f"{where}: id {key(item)!r} was used before, {place}")
