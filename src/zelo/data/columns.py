"""Training data of contrastive methods, as a collection.

    triples   `query<TAB>positive<TAB>negative`, as MS MARCO's, or with more negatives; the
              first line may be a header, whose names are then read as those of JSON lines
    columns   JSON lines of sentence-transformers: query or anchor, positive, negative(_1, _2, ...);
              or query, document (passage, text) and label or score
    lists     JSON lines of FlagEmbedding: query, pos, neg; of Tevatron: query, positive_passages,
              negative_passages, each with a text and perhaps a title

Records may have an `instruction` too: what makes a document relevant to the query. The same query
under another instruction is another query.

Each distinct text is a document; a positive is a label of grade 1, a negative one of grade 0. A
document that is a positive of a query on one line and a negative of it on another is a positive.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from zelo.config import option
from zelo.data.collection import SPLITS, Collection, Document, Label, LabelledSource, Query
from zelo.data.lines import json_objects, numbered_lines, plain, text_field
from zelo.data.records import INSTRUCTION, grade, instruction_of, with_instructions
from zelo.errors import UserError
from zelo.store import digest, digest_files

QUERY, POSITIVE = (
    ("query", "anchor", "question", "sentence1"),
    ("positive", "positives", "pos", "positive_passages", "answer"),
)
DOCUMENT, GRADE = (
    ("document", "passage", "text", "sentence2"),
    ("label", "score", "labels", "scores"),
)
NEGATIVE = re.compile(r"negatives?(_\d+)?|neg|negative_passages")


class Asked(NamedTuple):
    """What a row asks: the query, and what makes a document relevant to it."""

    text: str
    instruction: str = ""


Row = tuple[Asked, list[str], list[str], str]  # query, positives, negatives, `file:line`


class Columns(LabelledSource):
    """`data=columns data.files.train=FILE`: labelled pairs and triples, one file per split."""

    files: dict[str, str | None] = option(help="file of each split: train, dev, test", exclude=True)

    def paths(self) -> dict[str, Path]:
        """Every file, by its split."""
        found = {split: Path(name).expanduser() for split, name in self.files.items() if name}
        for split, path in found.items():
            if split not in SPLITS:
                raise UserError(f"data.files.{split}: no split; there are {', '.join(SPLITS)}")
            if not path.is_file():
                raise UserError(f"{path}: not found; it was named as the file of {split}")
        if not found:
            raise UserError("data.files: name at least one file (data.files.train=FILE)")
        return found

    def fingerprint(self) -> str:
        """Digest of every file."""
        content = [[split, digest_files([path])] for split, path in self.paths().items()]
        return digest([*content, *with_instructions(self.paths().values())])

    def load(self) -> Collection:
        """Read the files; `UserError` names file and line of what is malformed."""
        queries: dict[Asked, str] = {}
        documents: dict[str, str] = {}
        labels: dict[str, dict[tuple[str, str], tuple[int, str]]] = {}
        for split, path in self.paths().items():
            found = labels.setdefault(split, {})
            for query, positives, negatives, where in read_rows(path):
                query_id = queries.setdefault(
                    query, id_of_text("q", "\0".join(filter(None, query)))
                )
                for relevance, texts in ((0, negatives), (1, positives)):
                    for text in texts:
                        doc_id = documents.setdefault(text, id_of_text("d", text))
                        before = found.get((query_id, doc_id), (0, where))
                        found[query_id, doc_id] = (max(relevance, before[0]), before[1])
        paths = list(self.paths().values())
        if not queries:
            raise UserError(f"{paths[0]}: empty, at least one line is needed")
        return self.collection(
            paths[0].name.partition(".")[0],
            (Document(doc_id, "", text) for text, doc_id in documents.items()),
            [Query(query_id, *query) for query, query_id in queries.items()],
            {
                split: [Label(*key, *label) for key, label in found.items()]
                for split, found in labels.items()
            },
            (paths[0].name, paths[0].name),
        )


def id_of_text(kind: str, text: str) -> str:
    """An id from a hash of the text, so that equal texts have the same."""
    return f"{kind}{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a tab-separated or JSON-lines file."""
    if ".jsonl" in path.suffixes or ".json" in path.suffixes:
        for number, record in json_objects(path):
            yield row_of(record, f"{path}:{number}")
        return
    names: list[str] = []  # of the columns, where the first line is a header
    for count, (number, line) in enumerate(numbered_lines(path)):
        where, fields = f"{path}:{number}", line.split("\t")
        if count == 0 and all(map(is_column, fields)):
            names = [plain(name) for name in fields]
        elif names:
            yield row_of(named_fields(names, fields, where), where)
        else:
            query, *texts = fields
            if not texts or not query.strip():
                raise UserError(
                    f"{where}: expected query<TAB>positive<TAB>negative ..., found "
                    f"{len(fields)} fields"
                )
            yield Asked(query), texts[:1], texts[1:], where


def named_fields(names: list[str], fields: list[str], where: str) -> dict[str, Any]:
    """A line as a record by the names of its columns, labels as numbers."""
    if len(fields) != len(names):
        raise UserError(f"{where}: expected {len(names)} fields, found {len(fields)}")
    return {
        name: grade(value, where) if name in GRADE else value
        for name, value in zip(names, fields, strict=True)
    }


def is_column(name: str) -> bool:
    """Whether a field of the first line is a known name of a column."""
    known = (*QUERY, *POSITIVE, *DOCUMENT, *GRADE, *INSTRUCTION)
    return plain(name) in known or NEGATIVE.fullmatch(plain(name)) is not None


def row_of(record: dict[str, Any], where: str) -> Row:
    """A JSON object as a row."""
    text = text_field(record, one_of(record, QUERY, where), where)
    query = Asked(text, instruction_of(record, where).strip())
    if any(name in record for name in POSITIVE):
        positives = texts_of(record, one_of(record, POSITIVE, where), where)
        negatives = [
            text for name in record if NEGATIVE.fullmatch(name)
            for text in texts_of(record, name, where)
        ]  # fmt: skip
        return query, positives, negatives, where
    documents = texts_of(record, one_of(record, DOCUMENT, where), where)
    grade = record[one_of(record, GRADE, where)]
    grades = grade if isinstance(grade, list) else [grade]
    if len(grades) != len(documents) or any(
        isinstance(g, bool) or not isinstance(g, int | float) for g in grades
    ):
        raise UserError(
            f"{where}: a number is needed as the label of each document, found {grade!r}"
        )
    if any(isinstance(g, float) and not g.is_integer() for g in grades):
        raise UserError(
            f"{where}: labels must be whole numbers, found {grade!r}: what a score is worth is not "
            f"known; write 0 or 1"
        )
    rows = list(zip(documents, grades, strict=True))
    return query, [d for d, g in rows if g > 0], [d for d, g in rows if g <= 0], where


def one_of(record: dict[str, Any], names: tuple[str, ...], where: str) -> str:
    """The first of several field names that the record has."""
    for name in names:
        if name in record:
            return name
    raise UserError(f"{where}: no field {' or '.join(names)}; there are {', '.join(record)}")


def texts_of(record: dict[str, Any], name: str, where: str) -> list[str]:
    """A field that is one text or a list of texts."""
    value = record[name]
    if isinstance(value, list):
        return [
            with_title(item, where)
            if isinstance(item, dict)
            else text_field({name: item}, name, where)
            for item in value
        ]
    return [text_field(record, name, where)]


def with_title(passage: dict[str, Any], where: str) -> str:
    """Title and text of a passage in Tevatron's format."""
    title = text_field(passage, "title", where, optional=True)
    text = text_field(passage, "text", where)
    return f"{title} {text}" if title else text
