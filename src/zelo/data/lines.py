"""Lines and JSON records of text files, plain or gzipped, with the place of whatever is wrong."""

from __future__ import annotations

import gzip
import json
import zlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zelo.errors import UserError


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file that are not blank, counted from 1, without their line ends.

    A byte order mark is no part of the text; a file whose name ends in `.gz` is decompressed.
    Raises `UserError` naming file and line.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise UserError(f"{path}:{number}: not UTF-8 ({error.reason})") from None
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except (EOFError, zlib.error, OSError) as error:
        raise UserError(f"{path}:{number + 1}: cannot be read ({error})") from None


def json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSON-lines file with their line numbers."""
    for number, line in numbered_lines(path):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}:{number}: not JSON ({error})") from None
        if not isinstance(record, dict):
            raise UserError(f"{path}:{number}: expected an object, found {type(record).__name__}")
        yield number, record


def text_field(record: dict[str, Any], field: str, where: str, optional: bool = False) -> str:
    """A field that must be a string of whole characters; "" for an optional one that is not there.

    `where` is `file:line`.
    """
    value = record.get(field)
    if value is None and optional:
        return ""
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


def read_records(
    path: Path, optional: tuple[str, ...] = (), key: str = "_id", text: str = "text"
) -> Iterator[dict[str, str]]:
    """Records of a JSON-lines file with string fields `key`, `text` and `optional`; ids unique.

    A repeated id is found at the end of the file: ids are not kept, only eight bytes of each.
    """
    hashes = array("q")
    for number, record in json_objects(path):
        where = f"{path}:{number}"
        found = {field: text_field(record, field, where) for field in (key, text)}
        found |= {field: text_field(record, field, where, optional=True) for field in optional}
        hashes.append(hash(found[key]))
        yield found
    for where, first, identifier in repeated(path, hashes, key):
        raise UserError(f"{where}: id {identifier!r} was used before, on line {first}")


def repeated(path: Path, hashes: array[int], key: str) -> Iterator[tuple[str, int, str]]:
    """Where an id of a JSON-lines file is used again, where it was first, and which it is."""
    values, counts = np.unique(np.frombuffer(hashes, dtype=np.int64), return_counts=True)
    suspect = set(values[counts > 1].tolist())
    if not suspect:
        return
    seen: dict[str, int] = {}
    for number, record in json_objects(path):
        identifier = record[key]
        if hash(identifier) in suspect and seen.setdefault(identifier, number) != number:
            yield f"{path}:{number}", seen[identifier], identifier
