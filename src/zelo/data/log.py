"""A log of a live system: each line a query and what was returned for it, best first.

    {"query": "...", "results": [{"id": "...", "text": "..."}, ...]}

A line may also have a `query_id`, and a result a `title`.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zelo.config import option
from zelo.data.collection import Collection, Document, LabelledSource
from zelo.data.lines import json_objects, text_field, title_field
from zelo.errors import UserError
from zelo.store import digest_files


@dataclass(frozen=True)
class LogLine:
    """One line of a log."""

    query_id: str
    query: str
    results: list[Document]


class Log(LabelledSource):
    """A sample of the queries of a log as a collection."""

    path: Path = option(help="JSON lines", exclude=True)
    sample: int = option(200, "queries, drawn by a hash of their line numbers", ge=1)
    draw: int = option(0, "another number draws other queries", ge=0)

    def fingerprint(self) -> str:
        """Digest of the file."""
        if not self.path.expanduser().is_file():
            raise UserError(f"{self.path}: not found; a log in JSON lines is needed")
        return digest_files([self.path.expanduser()])

    def lines(self) -> list[LogLine]:
        """The drawn lines, in their order.

        A document id that means different texts for different queries gets the query's id in front.
        """
        drawn = heapq.nsmallest(self.sample, read_log(self.path.expanduser()), key=self._draw_order)
        drawn.sort(key=lambda item: item[0])
        texts: dict[str, set[tuple[str, str]]] = {}
        for _, line in drawn:
            for doc in line.results:
                texts.setdefault(doc.doc_id, set()).add((doc.title, doc.text))
        return [
            LogLine(
                line.query_id,
                line.query,
                [
                    doc
                    if len(texts[doc.doc_id]) == 1
                    else doc._replace(doc_id=f"{line.query_id}/{doc.doc_id}")
                    for doc in line.results
                ],
            )
            for _, line in drawn
        ]

    def _draw_order(self, item: tuple[int, LogLine]) -> bytes:
        """Digest of a line's number; the lines with the lowest are the sample."""
        return hashlib.sha256(f"{self.draw}\x1f{item[0]}".encode()).digest()

    def load(self) -> Collection:
        """The drawn queries, all without labels, and the documents that were returned for them."""
        lines = self.lines()
        documents: dict[str, Document] = {}
        for line in lines:
            for doc in line.results:
                if documents.setdefault(doc.doc_id, doc) != doc:
                    raise UserError(
                        f"{self.path}: query {line.query_id!r}: {doc.doc_id!r} is the id of two "
                        f"documents; give each one of its own"
                    )
        return self.collection(
            self.path.name.partition(".")[0],
            documents.values(),
            [(line.query_id, line.query) for line in lines],
            {},
            (str(self.path), str(self.path)),
        )


def read_log(path: Path) -> Iterator[tuple[int, LogLine]]:
    """Lines of a log with their numbers; `UserError` names file and line."""
    seen: dict[str, int] = {}
    for number, record in json_objects(path):
        where = f"{path}:{number}"
        query_id = text_field(record, "query_id", where, optional=True) or f"line-{number}"
        if seen.setdefault(query_id, number) != number:
            raise UserError(f"{where}: query_id {query_id!r} was used before, on line "
                            f"{seen[query_id]}")  # fmt: skip
        rows = record.get("results")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{where}: field 'results' must be a list of objects")
        results = {}
        for row in rows:
            title = title_field(row, where)
            doc = Document(text_field(row, "id", where), title, text_field(row, "text", where))
            if doc.doc_id in results:
                raise UserError(f"{where}: result {doc.doc_id!r} was returned twice")
            results[doc.doc_id] = doc
        yield number, LogLine(query_id, text_field(record, "query", where), list(results.values()))
