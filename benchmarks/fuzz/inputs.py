"""Strange values, texts and files, and how valid ones are spoilt."""

from __future__ import annotations

import json
import math
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

T = TypeVar("T")
LONGEST = 20  # seconds that one input may take
SHOWN = 600  # characters of a failing input that are printed
MEMORY = Path("/dev/shm")
FOLDER = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))


class Broken(AssertionError):  # noqa: N818  # read as a word
    """A contract that does not hold; what stands before the colon names the failure."""


def expect(holds: Any, what: str, *details: Any) -> None:
    """Raise `Broken` where a contract does not hold."""
    if not holds:
        raise Broken(f"{what}: " + ", ".join(repr(detail)[:300] for detail in details))


ODD = (
    "", " ", "\t", "\n", "\r", "\0", "\x1c", "\x85", "\xa0", "\xad", "\u2028", "\ufeff", "\u200b",
    "\u202e", "e\u0301", "漢字", "𝕏", "\ud800", "{", "}", "[", "<", ">", '"', "'", "\\", "/", "#",
    "NaN", "-Infinity", "1e999", "-0.0", "5e-324", "0x1", "²", "٣", "1_0", "9" * 30, "null", "0",
    "2020-01-01", "<|im_end|>", "</s>", "[INST]", "{query}", "{code}", "the\n", "score: 1", "a\0b",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 0.5, -0.0, 5e-324, 1e308, math.inf, -math.inf, math.nan, 10**30,
    10**400, "", "x", "\ud800", "a\nb", "\0", "2020-01-01", "1", "0.5", [], [1], ["x"], {},
    {"a": 1}, [[]], ["\ud800"], {"a\nb": 1}, "DEEP",
)  # fmt: skip
PIECES = [odd.encode("utf-8", "surrogatepass") for odd in ODD] + [
    b"\xff", b"\xc3", b"\x1f\x8b", b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"\r\n", b"\n\n",
    b"\\ud800", b"\\u0000", b"\\n", b"</top>", b"<top>", b"<num>", b"<title>", b"&#10;",
]  # fmt: skip
NAMES = ("a", "b", "c", "a/b", "b/c", "a b", "é", "1", "", "2020-01-01", "a\0b", "a\u2028b")
names = st.sampled_from(NAMES)
near_names = st.sampled_from(("a", "b", "a/b", "b/a", "a/a"))
plain_names = st.sampled_from(("a", "b", "c", "d", "1"))
texts = st.one_of(
    st.sampled_from(("x", "an apple", "x")), st.sampled_from(ODD), st.text(max_size=9)
)
good_texts = texts.filter(lambda text: text.isprintable() and text.strip())


def edited(file: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """Files as they are, and with a few edits of their bytes."""
    edit = st.tuples(
        st.sampled_from(("insert", "delete", "double", "flip", "swap", "cut")),
        st.integers(0, 10**6),
        st.sampled_from(PIECES),
    )
    return st.one_of(file, st.builds(apply, file, st.lists(edit, min_size=1, max_size=3)))


def apply(file: bytes, edits: Sequence[tuple[str, int, bytes]]) -> bytes:
    """A file after edits (what, where, a piece)."""
    for what, where, piece in edits:
        at, lines = where % (len(file) + 1), file.split(b"\n")
        line = where % len(lines)
        if what == "insert":
            file = file[:at] + piece + file[at:]
        elif what == "delete":
            file = file[:at] + file[at + 1 + where % 7 :]
        elif what == "double":
            file = b"\n".join([*lines[: line + 1], *lines[line:]])
        elif what == "flip" and at < len(file):
            file = file[:at] + bytes([file[at] ^ (1 << where % 8)]) + file[at + 1 :]
        elif what == "swap":
            file = b"\n".join([*lines[line:], *lines[:line]])
        elif what == "cut":
            file = file[:at]
    return file


def records(**fields: SearchStrategy[Any]) -> SearchStrategy[dict[str, Any]]:
    """Objects with these fields, and some where one is missing or something odd."""
    whole = st.fixed_dictionaries(fields)
    name = st.sampled_from((*fields, "title", "score", "a\nb"))
    spoilt = st.builds(lambda r, n, v: {**r, n: v}, whole, name, st.sampled_from(VALUES))
    lacking = st.builds(lambda r, n: {k: r[k] for k in r if k != n}, whole, name)
    return st.one_of(whole, whole, whole, whole, spoilt, lacking)


def dumped(value: Any) -> bytes:
    """JSON, with what is called DEEP nested deeper than Python reads."""
    return json.dumps(value).encode().replace(b'"DEEP"', b"[" * 3000 + b"]" * 3000)


def json_lines(record: SearchStrategy[Any]) -> SearchStrategy[bytes]:
    """Files of JSON lines, a few of them edited."""
    rows = st.lists(record, min_size=1, max_size=5)
    return edited(rows.map(lambda rows: b"\n".join(map(dumped, rows))))


def lines_of(separator: str, *fields: SearchStrategy[str]) -> SearchStrategy[bytes]:
    """Files of lines of fields, a few of them edited."""
    rows = st.lists(st.tuples(*fields).map(separator.join), min_size=1, max_size=6)
    return edited(rows.map(lambda rows: "\n".join(rows).encode("utf-8", "surrogatepass")))


def tables(record: SearchStrategy[dict[str, Any]]) -> SearchStrategy[tuple[str, bytes]]:
    """Comparisons as JSON lines, or as Parquet of all kinds of types: ending and content."""
    kinds = st.sampled_from(
        (None, None, None, pa.string(), pa.large_string(), pa.float64(), pa.float32(), pa.int64(),
         pa.dictionary(pa.int32(), pa.string()), pa.binary(), pa.bool_(), pa.null(),
         pa.list_(pa.string()), pa.timestamp("s"), pa.struct({"a": pa.int8()}))
    )  # fmt: skip
    rows = st.lists(record, min_size=1, max_size=5)
    columns = st.dictionaries(
        st.sampled_from(("query_id", "doc_a", "p", "judge", "reasons")), kinds
    )
    parquet = st.builds(as_parquet, rows, columns, st.booleans())
    return st.one_of(
        st.tuples(st.just("jsonl"), json_lines(record)),
        st.tuples(st.just("parquet"), st.one_of(parquet, edited(parquet))),
    )


def as_parquet(rows: list[dict[str, Any]], kinds: dict[str, Any], twice: bool) -> bytes:
    """Rows as Parquet, columns cast where they can be; `twice`: one column stands there twice."""
    columns: dict[str, Any] = {}
    for name in {name: None for row in rows for name in row}:
        values = [row.get(name) for row in rows]
        for kind in (kinds.get(name), None, pa.string()):
            try:
                column = pa.array([str(v) if kind == pa.string() else v for v in values], kind)
                pq.write_table(pa.table({"a": column}), pa.BufferOutputStream())
                columns[name] = column
                break
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                continue
    labels, arrays = list(columns), list(columns.values())
    if twice and len(arrays) > 3:
        labels, arrays = [*labels, labels[3]], [*arrays, arrays[3]]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays, names=[label.replace("\n", " ") for label in labels]), sink)
    return sink.getvalue().to_pybytes()


def mutated(text: str, rng: random.Random) -> str:
    """A text after up to three edits."""
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(5):
            case 0:
                text = text[:at] + rng.choice(ODD) * rng.choice((1, 1, 2, 50)) + text[at:]
            case 1:
                text = text[:at] + text[at + rng.randrange(1, 9) :]
            case 2:
                text = text[:at] + text
            case 3:
                text = text[:at]
            case _:
                text = text[:at] + chr(rng.choice((rng.randrange(128), rng.randrange(0x110000))))
    return text


def odd_text(rng: random.Random) -> str:
    """A few odd pieces after one another."""
    return "".join(rng.choices((*ODD, "apple ", "b"), k=rng.randrange(5)))
