"""TREC's formats: topics, qrels, runs; and documents and topics as tab-separated lines.

run     `qid Q0 docid rank score tag`, or `qid docid score`; the order is that of the scores,
        and of equal scores the higher document id comes first: trec_eval's rule
qrels   `qid 0 docid relevance`
topics  `<top> <num> Number: 301 <title> text </top>`, `<topic number="1"><query>text</query>`,
        or lines `id<TAB>text`
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import numpy as np

from zelo.artifacts import write_text
from zelo.config import option
from zelo.data.beir import grade
from zelo.data.collection import Collection, Document, Label, LabelledSource
from zelo.data.lines import json_objects, numbered_lines, text_field, unique
from zelo.errors import UserError
from zelo.retrieval.ranking import Ranking
from zelo.store import digest, digest_files

BLANK = re.compile(r"\s")
OPENING = re.compile(r"<top(?:ic)?\b([^<>]*)>", re.IGNORECASE)
BEGUN = re.compile(r"<top(?:ic)?\b", re.IGNORECASE)
CLOSING = re.compile(r"</top(?:ic)?>", re.IGNORECASE)
NUMBER = re.compile(r"<num>([^<]*)", re.IGNORECASE)
ATTRIBUTE = re.compile(r"number\s*=\s*[\"']([^\"']+)[\"']", re.IGNORECASE)
TITLE = re.compile(r"<(?:title|query)>([^<]*)", re.IGNORECASE)
IDS, TEXTS = ("_id", "id", "docid", "doc_id"), ("text", "contents", "document_text", "content")


class TrecFiles(LabelledSource):
    """`data=trec data.documents=FILE data.topics=FILE data.qrels.test=FILE`."""

    documents: str = option(
        help="JSON lines (_id or docid; text or contents; title) or lines id<TAB>text",
        exclude=True,
    )
    topics: str = option(help="topics, or lines id<TAB>text", exclude=True)
    qrels: dict[str, str | None] = option(
        {"train": None, "dev": None, "test": None},
        "qrels file of each split: train, dev, test",
        exclude=True,
    )

    def files(self) -> dict[str, Path]:
        """Every file that is read, by what it is."""
        named = {"documents": self.documents, "topics": self.topics, **self.qrels}
        found = {what: Path(name).expanduser() for what, name in named.items() if name}
        for what, path in found.items():
            if not path.is_file():
                raise UserError(f"{path}: not found; it was named as the {what}")
        return found

    def fingerprint(self) -> str:
        """Digest of the content of every file."""
        return digest([[what, digest_files([path])] for what, path in self.files().items()])

    def load(self) -> Collection:
        """Read the files; `UserError` names file and line of what is malformed."""
        files = self.files()
        documents, topics = files.pop("documents"), files.pop("topics")
        return self.collection(
            topics.name.partition(".")[0],
            read_documents(documents),
            list(read_topics(topics)),
            {split: read_qrels(path) for split, path in files.items()},
            (documents.name, topics.name),
        )


def read_documents(path: Path) -> Iterator[Document]:
    """Documents of a JSON-lines or tab-separated file; ids unique."""
    is_json = ".json" in path.suffixes or ".jsonl" in path.suffixes
    rows = json_documents if is_json else tab_documents
    return unique(lambda: rows(path), lambda document: document.doc_id)


def json_documents(path: Path) -> Iterator[tuple[str, Document]]:
    """Place and document of each JSON object."""
    for number, record in json_objects(path):
        where = f"{path}:{number}"
        key, text = (
            next((name for name in names if name in record), names[0]) for names in (IDS, TEXTS)
        )
        title = text_field(record, "title", where, optional=True)
        doc_id, whole = (text_field(record, name, where) for name in (key, text))
        yield where, Document(doc_id, title, whole)


def tab_documents(path: Path) -> Iterator[tuple[str, Document]]:
    """Place and document of each line of two or three fields."""
    for number, line in numbered_lines(path):
        fields = line.split("\t")
        if len(fields) not in (2, 3):
            raise UserError(
                f"{path}:{number}: expected id<TAB>text or id<TAB>title<TAB>text, found "
                f"{len(fields)} fields"
            )
        title = fields[1] if len(fields) == 3 else ""
        yield f"{path}:{number}", Document(fields[0], title, fields[-1])


def read_topics(path: Path) -> Iterator[tuple[str, str]]:
    """Id and text of each topic; `UserError` names the file, and line or topic."""
    lines = list(numbered_lines(path))
    seen: dict[str, int] = {}
    if lines and lines[0][1].lstrip().startswith("<"):
        found = [
            topic(count, attributes, body, path)
            for count, (attributes, body) in enumerate(
                topics_of("\n".join(line for _, line in lines), path), start=1
            )
        ]
    else:
        found = []
        for count, line in lines:
            fields = line.split("\t")
            if len(fields) != 2:
                raise UserError(f"{path}:{count}: expected id<TAB>text, found {len(fields)} fields")
            found.append((count, fields[0], fields[1]))
    for count, query_id, query in found:
        if seen.setdefault(query_id, count) != count:
            raise UserError(f"{path}:{count}: topic {query_id!r} was there before")
        yield query_id, query
    if not found:
        raise UserError(f"{path}: empty, at least one topic is needed")


def topics_of(text: str, path: Path) -> Iterator[tuple[str, str]]:
    """Attributes and body of each topic; `UserError` where one does not end."""
    openings = [*OPENING.finditer(text), None]
    if len(BEGUN.findall(text)) >= len(openings):
        raise UserError(f"{path}: a <top is not closed by >")
    for count, (this, after) in enumerate(pairwise(openings), start=1):
        assert this is not None  # the last alone is
        body = text[this.end() : after.start() if after else len(text)]
        end = CLOSING.search(body)
        if end is None:
            raise UserError(f"{path}: topic {count} begins and does not end: </top> is missing")
        yield this[1], body[: end.start()]


def topic(count: int, attributes: str, body: str, path: Path) -> tuple[int, str, str]:
    """Place, id and text of one topic."""
    named, numbered, titled = ATTRIBUTE.search(attributes), NUMBER.search(body), TITLE.search(body)
    number = named[1] if named else without(numbered[1], "number:") if numbered else ""
    title = without(titled[1], "topic:") if titled else ""
    if not number.split() or not title:
        raise UserError(f"{path}: topic {count} has no number or no title")
    return count, number.split()[0], html.unescape(" ".join(title.split()))


def without(text: str, label: str) -> str:
    """A field without the label that some files begin it with."""
    text = text.strip()
    return text[len(label) :].strip() if text.lower().startswith(label) else text


def read_qrels(path: Path) -> Iterator[Label]:
    """Rows of a TREC qrels file."""
    for number, line in numbered_lines(path):
        fields = line.split()
        if len(fields) != 4:
            raise UserError(
                f"{path}:{number}: expected 4 fields (qid 0 docid relevance), found {len(fields)}"
            )
        where = f"{path}:{number}"
        yield Label(fields[0], fields[2], grade(fields[3], where), where)


def read_run(path: Path) -> dict[str, list[tuple[str, float]]]:
    """A run: query id → (document id, score), best first; `UserError` names file and line.

    Also JSON lines: `{"query_id", "doc_id", "score"}`, or RankLLM's `{"query": {"qid"},
    "candidates": [{"docid", "score"}]}`.
    """
    found: dict[str, dict[str, float]] = {}
    is_json = ".jsonl" in path.suffixes or ".json" in path.suffixes
    for where, query_id, doc_id, score in json_rows(path) if is_json else run_rows(path):
        if not query_id or not doc_id:
            raise UserError(f"{where}: an id is empty")
        value = as_score(score, where)
        ranked = found.setdefault(query_id, {})
        if doc_id in ranked:
            raise UserError(f"{where}: query {query_id!r} has document {doc_id!r} twice")
        ranked[doc_id] = value
    if not found:
        raise UserError(f"{path}: empty, at least one line is needed")
    # Stable sorts, the second one deciding: of equal scores the higher id comes first.
    return {
        query_id: sorted(sorted(ranked.items(), reverse=True), key=lambda item: -single(item[1]))
        for query_id, ranked in found.items()
    }


def as_score(value: object, where: str) -> float:
    """A score of a run."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            score = float(value)
        except (ValueError, OverflowError):
            score = math.nan
        if not math.isnan(score):
            return score
    raise UserError(f"{where}: the score must be a number, found {value!r}")


def run_rows(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Place, query id, document id and score of each line of a run."""
    for number, line in numbered_lines(path):
        fields = line.split()
        if len(fields) not in (3, 6):
            raise UserError(
                f"{path}:{number}: expected 6 fields (qid Q0 docid rank score tag) or 3 (qid docid "
                f"score), found {len(fields)}"
            )
        query_id, doc_id, score = fields if len(fields) == 3 else (fields[0], fields[2], fields[4])
        yield f"{path}:{number}", query_id, doc_id, score


def json_rows(path: Path) -> Iterator[tuple[str, str, str, object]]:
    """Place, query id, document id and score of each row of a run in JSON lines."""
    for number, record in json_objects(path):
        where = f"{path}:{number}"
        if "candidates" not in record:
            query_id, doc_id = (text_field(record, n, where) for n in ("query_id", "doc_id"))
            yield where, query_id, doc_id, record.get("score")
            continue
        try:
            for row in record["candidates"]:
                query_id, doc_id = record["query"]["qid"], row["docid"]
                yield (
                    where,
                    as_id(query_id, "qid", where),
                    as_id(doc_id, "docid", where),
                    row["score"],
                )
        except (KeyError, TypeError) as error:
            raise UserError(
                f'{where}: expected {{"query": {{"qid"}}, "candidates": [{{"docid", "score"}}]}} '
                f"({type(error).__name__}: {error})"
            ) from None


def as_id(value: object, name: str, where: str) -> str:
    """An id: text, or a whole number, as RankLLM writes them."""
    return text_field({name: str(value) if type(value) is int else value}, name, where)


def write_run(path: Path, ranking: Ranking, tag: str) -> None:
    """Write a ranking, ranks from 1.

    White space within an id, which the format cannot hold, is percent-encoded. Scores are replaced
    by falling whole numbers where they tie, since tools that read runs sort by score.
    """
    lines = []
    for query_id, ranked in ranking.items():
        scores = [score for _, score in ranked]
        tied = any(single(after) >= single(before) for before, after in pairwise(scores))
        for rank, (doc_id, score) in enumerate(ranked, start=1):
            value = len(ranked) - rank + 1 if tied else score
            lines.append(f"{encoded(query_id)} Q0 {encoded(doc_id)} {rank} {value!r} {tag}\n")
    write_text(path, "".join(lines))


def single(score: float) -> float:
    """A score in single precision, in which trec_eval compares scores."""
    return float(np.float32(score))


def encoded(identifier: str) -> str:
    """An id without white space."""
    return BLANK.sub(lambda found: quote(found.group()), identifier)
