"""TREC's formats: topics, qrels, runs; and documents and topics as tab-separated lines.

run     `qid Q0 docid rank score tag`, or `qid docid score`; the order is that of the scores,
        and of equal scores the higher document id comes first: trec_eval's rule. Also MS MARCO's
        `qid docid rank` (see `read_run`)
qrels   `qid 0 docid relevance`
topics  `<top> <num> Number: 301 <title> text </top>`, `<topic number="1"><query>text</query>`,
        or lines `id<TAB>text`. The query of a topic is its title or query; without them its
        summary, its description or, as in the Clinical Trials track, all of its text
"""

from __future__ import annotations

import html
import math
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from zelo.artifacts import write_text
from zelo.config import option
from zelo.data.collection import Collection, Document, LabelledSource
from zelo.data.lines import json_objects, numbered_lines, text_field, unique
from zelo.data.records import (
    DOC_ID,
    DOC_TEXT,
    QUERY_ID,
    QUERY_TEXT,
    TREC,
    as_float,
    document_of,
    header_of,
    read_qrels,
)
from zelo.errors import UserError
from zelo.store import digest, digest_files

THREE, SIX = 3, 6  # fields of a line of a run
BLANK = re.compile(r"\s")
OPENING = re.compile(r"<top(?:ic)?\b([^<>]*)>", re.IGNORECASE)
BEGUN = re.compile(r"<top(?:ic)?\b", re.IGNORECASE)
CLOSING = re.compile(r"</top(?:ic)?>", re.IGNORECASE)
ATTRIBUTE = re.compile(r"number\s*=\s*[\"']([^\"']+)[\"']", re.IGNORECASE)
# Fields of topics: one without an end tag ends where the next of these begins, not at any `<`.
FIELDS = (
    *("num", "title", "query", "desc", "description", "narr", "narrative", "question", "summary"),
    *("note", "dom", "smry", "con", "fac", "def", "nat", "time", "field", "disease", "gene"),
    *("demographic", "other", "treatment"),
)
FIELD = re.compile(rf"</?(?:{'|'.join(FIELDS)})\b[^<>]*>", re.IGNORECASE)
NAMED = re.compile(r"<field\b[^<>]*\bname\s*=\s*[\"']([^\"']+)[\"'][^<>]*>", re.IGNORECASE)
ASKED = (("title", "query"), ("summary",), ("question", "description", "desc"))
LABELS = ("number:", "topic:", "description:")  # with which some files begin a field


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
        """Every file that is read, by what it holds: documents, topics or labels of a split."""
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
            {split: read_qrels(path, TREC) for split, path in files.items()},
            (documents.name, topics.name),
        )


def read_documents(path: Path) -> Iterator[Document]:
    """Documents of a JSON-lines or tab-separated file; `UserError` where an id occurs twice."""
    is_json = ".json" in path.suffixes or ".jsonl" in path.suffixes
    rows = json_documents if is_json else tab_documents
    return unique(lambda: rows(path), lambda document: document.doc_id)


def json_documents(path: Path) -> Iterator[tuple[str, Document]]:
    """`file:line` and document of each JSON object."""
    for number, record in json_objects(path):
        yield f"{path}:{number}", document_of(record, f"{path}:{number}")


def tab_documents(path: Path) -> Iterator[tuple[str, Document]]:
    """`file:line` and document of each line of two or three fields; the first may be a header."""
    first, columns = True, {2: [0, 1], 3: [0, 2, 1]}  # of id, text and title
    for number, line in numbered_lines(path):
        fields = line.split("\t")
        if len(fields) not in columns:
            raise UserError(
                f"{path}:{number}: expected id<TAB>text or id<TAB>title<TAB>text, found "
                f"{len(fields)} fields"
            )
        wanted = (DOC_ID, DOC_TEXT, ("title",))[: len(fields)]
        if first and (named := header_of(fields, *wanted)):
            columns[len(fields)] = named
        else:
            doc_id, text, *title = (fields[column] for column in columns[len(fields)])
            yield f"{path}:{number}", Document(doc_id, "".join(title), text)
        first = False


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
        columns = [0, 1]  # of id and text
        for count, line in lines:
            fields = line.split("\t")
            if len(fields) != 2:
                raise UserError(f"{path}:{count}: expected id<TAB>text, found {len(fields)} fields")
            if count == lines[0][0] and (named := header_of(fields, QUERY_ID, QUERY_TEXT)):
                columns = named
            else:
                found.append((count, fields[columns[0]], fields[columns[1]]))
    for count, query_id, query in found:
        if seen.setdefault(query_id, count) != count:
            raise UserError(f"{path}:{count}: topic {query_id!r} was there before")
        yield query_id, query
    if not found:
        raise UserError(f"{path}: empty, at least one topic is needed")


def topics_of(text: str, path: Path) -> Iterator[tuple[str, str]]:
    """Attributes and body of each topic; `UserError` where an end tag is missing."""
    openings = [*OPENING.finditer(text), None]
    if len(BEGUN.findall(text)) >= len(openings):
        raise UserError(f"{path}: a <top is not closed by >")
    for count, (this, after) in enumerate(pairwise(openings), start=1):
        assert this is not None  # only the one after the last is
        body = text[this.end() : after.start() if after else len(text)]
        end = CLOSING.search(body)
        if end is None:
            raise UserError(f"{path}: topic {count} begins and does not end: </top> is missing")
        yield this[1], body[: end.start()]


def topic(count: int, attributes: str, body: str, path: Path) -> tuple[int, str, str]:
    """Number in the file, id and text of one topic."""
    named = ATTRIBUTE.search(attributes)
    number = named[1] if named else field_of_topic(body, ("num",)) or ""
    text = next((text for names in ASKED if (text := field_of_topic(body, names))), None)
    if text is None:
        whole = re.sub(r"<num\b.*?(?=<|\Z)", " ", body, flags=re.IGNORECASE | re.DOTALL)
        text = FIELD.sub(" ", NAMED.sub(r" \1: ", whole))
    if not number.split() or not text.split():
        raise UserError(f"{path}: topic {count} has no number or no text")
    return count, number.split()[0], html.unescape(" ".join(text.split()))


def field_of_topic(body: str, names: tuple[str, ...]) -> str | None:
    """The text of the first field with one of these names, up to its end tag or the next field."""
    begun = re.search(rf"<({'|'.join(names)})\b[^<>]*>", body, re.IGNORECASE)
    if begun is None:
        return None
    rest = body[begun.end() :]
    end = re.search(rf"</{begun[1]}\s*>", rest, re.IGNORECASE) or FIELD.search(rest)
    text = rest[: end.start() if end else len(rest)].strip()
    label = next((label for label in LABELS if text.lower().startswith(label)), "")
    return text[len(label) :].strip()


def read_run(
    path: Path, order: str | None = None, option: str = "order"
) -> dict[str, list[tuple[str, float]]]:
    """A run: query id → (document id, score), best first; `UserError` names file and line.

    Also JSON lines: `{"query_id", "doc_id", "score"}`, or RankLLM's `{"query": {"qid"},
    "candidates": [{"docid", "score"}]}`. With `order` "score" or "rank" documents are ordered by
    that. Without it they are ordered by score, unless lines have three fields and the last of them
    counts 1, 2, 3 ... within each query, as in MS MARCO's runs: those are ranks. Where scores could
    be ranks a `UserError` names the `option` that decides. A rank becomes the score -rank.
    """
    found: dict[str, dict[str, float]] = {}
    ranks: dict[str, array[float]] = {}  # in the order of the lines; NaN: none
    fields, by_rank = None, order == "rank"
    is_json = ".jsonl" in path.suffixes or ".json" in path.suffixes
    for row in json_rows(path) if is_json else run_rows(path):
        if not row.query_id or not row.doc_id:
            raise UserError(f"{row.where}: an id is empty")
        if fields is None:
            fields = row.fields
            by_rank = by_rank or (order is None and row.score is None and row.rank is not None)
        if row.fields != fields:
            raise UserError(
                f"{row.where}: expected {fields} fields, as on the first line, found {row.fields}"
            )
        value = (
            as_rank(row.rank, row.where) if by_rank else as_number(row.score, "score", row.where)
        )
        ranked = found.setdefault(row.query_id, {})
        if row.doc_id in ranked:
            raise UserError(
                f"{row.where}: query {row.query_id!r} has document {row.doc_id!r} twice"
            )
        ranked[row.doc_id] = value
        ranks.setdefault(row.query_id, array("d")).append(as_float(str(row.rank)))
    if not found:
        raise UserError(f"{path}: empty, at least one line is needed")
    if order is None and not by_rank:
        scores = [list(ranked.values()) for ranked in found.values()]
        if fields == THREE:
            by_rank = are_ranks(scores, path, option)
        elif scores_rise_with_ranks(list(ranks.values()), scores):
            raise UserError(
                f"{path}: scores rise as ranks do, so that the last would come first: say "
                f"{option}=rank or {option}=score"
            )
    sign = -1.0 if by_rank else 1.0
    # Stable sorts, the second one deciding: of equal scores the higher id comes first.
    return {
        query_id: sorted(
            sorted(((doc_id, sign * value) for doc_id, value in ranked.items()), reverse=True),
            key=lambda item: -single(item[1]),
        )
        for query_id, ranked in found.items()
    }


def are_ranks(values: Sequence[Sequence[float]], path: Path, option: str) -> bool:
    """Whether the last of three fields is a rank, judged by its values in the order of each query's
    lines; `UserError` where that is uncertain."""
    if all(list(row) == list(range(1, len(row) + 1)) for row in values):
        return True
    several = [row for row in values if len(row) > 1]
    counts = all(sorted(row) == list(range(1, len(row) + 1)) for row in several)
    whole = all(value >= 0 and value.is_integer() for row in several for value in row)
    rising = all(before < after for row in several for before, after in pairwise(row))
    falling = all(before > after for row in several for before, after in pairwise(row))
    if several and ((whole and rising) or (counts and not falling)):
        raise UserError(
            f"{path}: the last of three fields could be ranks or scores: say {option}=rank or "
            f"{option}=score"
        )
    return False


def scores_rise_with_ranks(
    ranks: Sequence[Sequence[float]], scores: Sequence[Sequence[float]]
) -> bool:
    """Whether, in every query of several documents, scores rise as ranks do."""
    several = [
        sorted(zip(rank, score, strict=True))
        for rank, score in zip(ranks, scores, strict=True)
        if len(rank) > 1
    ]
    return bool(several) and all(
        before[0] < after[0] and before[1] < after[1]
        for row in several
        for before, after in pairwise(row)
    )


def as_rank(value: object, where: str) -> float:
    """A rank of a run."""
    rank = as_number(value, "rank", where)
    if not rank.is_integer():
        raise UserError(f"{where}: the rank must be a whole number, found {value!r}")
    return rank


def as_number(value: object, what: str, where: str) -> float:
    """A score or a rank of a run."""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        try:
            score = float(value)
        except (ValueError, OverflowError):
            score = math.nan
        if not math.isnan(score):
            return score
    raise UserError(f"{where}: the {what} must be a number, found {value!r}")


class RunRow(NamedTuple):
    """A row of a run as the file has it."""

    where: str
    query_id: str
    doc_id: str
    score: object
    rank: object = None
    fields: int | None = None  # of a line


def run_rows(path: Path) -> Iterator[RunRow]:
    """Rows of a run in TREC's or MS MARCO's format."""
    for number, line in numbered_lines(path):
        fields = line.split()
        if len(fields) not in (THREE, SIX):
            raise UserError(
                f"{path}:{number}: expected 6 fields (qid Q0 docid rank score tag) or 3 (qid docid "
                f"score, or qid docid rank), found {len(fields)}"
            )
        where, count = f"{path}:{number}", len(fields)
        if count == THREE:
            yield RunRow(where, fields[0], fields[1], fields[2], fields[2], count)
        else:
            yield RunRow(where, fields[0], fields[2], fields[4], fields[3], count)


def json_rows(path: Path) -> Iterator[RunRow]:
    """Rows of a run in JSON lines; each has a score, a rank or both."""
    for number, record in json_objects(path):
        where = f"{path}:{number}"
        if "candidates" not in record:
            query_id, doc_id = (text_field(record, n, where) for n in ("query_id", "doc_id"))
            yield RunRow(where, query_id, doc_id, record.get("score"), record.get("rank"))
            continue
        try:
            for row in record["candidates"]:
                query_id, doc_id = record["query"]["qid"], row["docid"]
                yield RunRow(
                    where,
                    text_field({"qid": query_id}, "qid", where),
                    text_field({"docid": doc_id}, "docid", where),
                    row["score"],
                )
        except (KeyError, TypeError) as error:
            raise UserError(
                f'{where}: expected {{"query": {{"qid"}}, "candidates": [{{"docid", "score"}}]}} '
                f"({type(error).__name__}: {error})"
            ) from None


def write_run(path: Path, ranking: Mapping[str, Sequence[tuple[str, float]]], tag: str) -> None:
    """Write a ranking: query id → (document id, score), best first; ranks from 1.

    White space within an id, which the format does not allow, is percent-encoded. Where scores of a
    query are equal, its scores are replaced by falling whole numbers, since tools that read runs
    sort by score.
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
    """An id with its white space percent-encoded."""
    return BLANK.sub(lambda found: quote(found.group()), identifier)
