"""Queries, documents and labels by the names that published sets give their fields.

Names are compared in lower case, with `-` read as `_`. Where a record has several of the names in a
list, the first in the list counts.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from zelo.data.arrow import parquet_records
from zelo.data.collection import Document, Label, Query
from zelo.data.lines import binary, json_objects, numbered_lines, plain, text_field, title_field
from zelo.errors import UserError

QUERY_ID = ("_id", "id", "query_id", "qid", "queryid")
QUERY_TEXT = ("text", "query", "question", "query_text")
INSTRUCTION = ("instruction",)
NAMED = re.compile(rb'["\t]instruction["\t\r\n]', re.IGNORECASE)  # in a header or an object
QUERY = {*QUERY_ID, *QUERY_TEXT, *INSTRUCTION}
DOC_ID = ("_id", "id", "docid", "doc_id", "docno", "corpus_id", "document_id", "pid", "passage_id")
DOC_TEXT = ("text", "contents", "content", "document_text", "passage", "body")
LABEL_QUERY = (*QUERY_ID[2:], "q_id", "topic_id", "topic", "query")
LABEL_DOC = ("corpus_id", *DOC_ID[2:], "did", "document", "doc")
GRADE = ("score", "relevance", "rel", "label", "grade", "relevancy", "judgment")
LABEL = {*LABEL_QUERY, *LABEL_DOC, *GRADE}

SPLIT_NAMES = {
    "train": ("train", "training"),
    "dev": ("dev", "development", "validation", "valid", "val"),
    "test": ("test", "testing"),
}

# Forms of a line of labels, in the order in which they are tried on the first line: separator and
# number of its fields.
TAB, BLANK = "\t", None
BEIR = ((TAB, 3), (TAB, 4), (BLANK, 4), (BLANK, 3))
TREC = ((BLANK, 4), (TAB, 4), (TAB, 3), (BLANK, 3))
COLUMNS = {3: (0, 1, 2), 4: (0, 2, 3)}  # of query, document and grade


def split_named(name: str) -> str | None:
    """The split that a name usually stands for; None where it is no usual name."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def header_of(fields: Sequence[str], *wanted: Sequence[str]) -> list[int] | None:
    """Index of each wanted column, if the first line of a file is a header of just these columns;
    None where it is a row like the others."""
    columns = [column_of(fields, names) for names in wanted]
    found = [column for column in columns if column is not None]
    return found if len(found) == len(wanted) == len(fields) == len(set(found)) else None


def column_of(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    """Index of the first of the `wanted` names that a header or record has."""
    columns = {plain(name): column for column, name in reversed([*enumerate(names)])}
    return next((columns[name] for name in wanted if name in columns), None)


def field_of(record: Mapping[str, Any], wanted: Sequence[str], where: str) -> str:
    """The name under which a record has a field; `UserError` where it has none of those wanted."""
    if wanted[0] in record:  # so it is in most records
        return wanted[0]
    names = list(record)
    column = column_of(names, wanted)
    if column is None:
        there = ", ".join(names) or "none"
        raise UserError(f"{where}: no field {' or '.join(wanted[:2])}; there are {there}")
    return names[column]


def query_of(record: dict[str, Any], where: str) -> Query:
    """A query; `UserError` where its id or its text is missing or not a text."""
    query_id, text = (
        text_field(record, field_of(record, names, where), where)
        for names in (QUERY_ID, QUERY_TEXT)
    )
    return Query(query_id, text, instruction_of(record, where))


def instruction_of(record: dict[str, Any], where: str) -> str:
    """What a record says is relevant to its query; "" where it says nothing."""
    names = list(record)
    column = column_of(names, INSTRUCTION)
    return "" if column is None else text_field(record, names[column], where, optional=True)


def with_instructions(paths: Iterable[Path]) -> list[str]:
    """What goes into the fingerprint of files of queries where a field of theirs is one for
    instructions, since there was a time when it was not read."""
    return list(INSTRUCTION) if any(map(may_instruct, paths)) else []


def may_instruct(path: Path) -> bool:
    """Whether a file may have a field for instructions."""
    with suppress(OSError, EOFError, zlib.error, pa.ArrowException):
        if path.suffix == ".parquet":
            return any(plain(name) in INSTRUCTION for name in pq.read_schema(path).names)
        with binary(path) as file:
            return any(NAMED.search(line) for line in file)
    return False  # of one that cannot be read, which is said when it is loaded


def document_of(record: dict[str, Any], where: str) -> Document:
    """A document; `UserError` where its id or its text is missing or not a text."""
    doc_id = text_field(record, field_of(record, DOC_ID, where), where)
    text = text_field(record, field_of(record, DOC_TEXT, where), where)
    return Document(doc_id, title_field(record, where), text)


def label_of(record: dict[str, Any], where: str) -> Label:
    """A label; one without a grade, as in NanoBEIR, is of grade 1."""
    query_id, doc_id = (
        text_field(record, field_of(record, names, where), where)
        for names in (LABEL_QUERY, LABEL_DOC)
    )
    names = list(record)
    column = column_of(names, GRADE)
    return make_label(query_id, doc_id, 1 if column is None else record[names[column]], where)


def make_label(query_id: str, doc_id: str, relevance: object, where: str) -> Label:
    """A label from fields as a file has them."""
    if not query_id or not doc_id:
        raise UserError(f"{where}: an id is empty")
    return Label(query_id, doc_id, grade(relevance, where), where)


def grade(value: object, where: str) -> int:
    """A grade of relevance: a whole number, however it is written (`1`, `1.0`)."""
    number = value
    if isinstance(value, str):
        try:
            number = int(value)
        except ValueError:
            number = as_float(value)
    if isinstance(number, int) or (isinstance(number, float) and number.is_integer()):
        return int(number)
    raise UserError(f"{where}: score must be a whole number, found {value!r}")


def as_float(text: str) -> float:
    """A text as a number; NaN where it is not one."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def read_qrels(path: Path, forms: Sequence[tuple[str | None, int]] = BEIR) -> Iterator[Label]:
    """Labels of a file; `UserError` names file and line.

    Three columns (query, document, grade) or TREC's four, in this order unless the first line is a
    header. Files that end in `.jsonl` or `.parquet` are read by the names of their fields.
    """
    if path.suffix == ".parquet":
        yield from (label_of(record, where) for where, record in parquet_records(path, LABEL))
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        for number, record in json_objects(path):
            yield label_of(record, f"{path}:{number}")
    else:
        yield from rows_of_qrels(path, forms)


def rows_of_qrels(path: Path, forms: Sequence[tuple[str | None, int]]) -> Iterator[Label]:
    """Labels of lines; see `read_qrels`."""
    separator: str | None = BLANK
    count, columns = 0, None
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        if columns is None:
            separator, count, columns, named = columns_of(line, forms, where)
            if named:
                continue
        fields = line.split(separator)
        if len(fields) != count:
            by = "tabs" if separator else "white space"
            raise UserError(
                f"{where}: expected {count} fields separated by {by} as on the first line, found "
                f"{len(fields)}"
            )
        query, document, relevance = columns
        found = "1" if relevance is None else fields[relevance]
        yield make_label(fields[query], fields[document], found, where)


def columns_of(
    line: str, forms: Sequence[tuple[str | None, int]], where: str
) -> tuple[str | None, int, tuple[int, int, int | None], bool]:
    """Separator, number and order of the columns by a file's first line, and whether that line is a
    header."""
    for separator in (TAB, BLANK):
        fields = line.split(separator)
        query, document, relevance = (
            column_of(fields, names) for names in (LABEL_QUERY, LABEL_DOC, GRADE)
        )
        graded = relevance is not None or len(fields) == 2  # two columns: all are of grade 1
        if query is not None and document is not None and graded:
            return separator, len(fields), (query, document, relevance), True
    for separator, count in forms:
        fields = line.split(separator)
        if len(fields) == count:
            columns = COLUMNS[count]
            # A header of unknown names: it has no grade and no digit.
            named = math.isnan(as_float(fields[-1])) and not any(map(str.isdigit, line))
            return separator, count, columns, named
    raise UserError(
        f"{where}: expected 3 fields separated by tabs (query-id, corpus-id, score) or TREC's 4 "
        f"(qid 0 docid relevance), found {len(line.split())}"
    )
