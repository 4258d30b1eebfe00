"""Preferences that are already there, as a judge: of people, or bought elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from zelo.artifacts import Table
from zelo.config import option
from zelo.data.arrow import is_text, read_json_lines, reading, valid
from zelo.errors import UserError
from zelo.judging.base import BaseJudge, LocalSession
from zelo.judging.question import ANSWERED, FAILED, Answer, Question, swapped
from zelo.store import digest, digest_files

IDS = ("query_id", "doc_a", "doc_b")
NOT_RECORDED = "not_recorded"


class Recorded(BaseJudge):
    """Answers with what a file holds: Parquet or JSON lines as `zelo rate` reads them.

    A row is `query_id`, `doc_a` (shown first), `doc_b`, and `p` in [0, 1] or `score` in [−1, 1]
    (null: no answer); `judge` and `reasons` are read where they are given. Several rows about one
    pair are averaged. What the file does not hold is a failed answer.
    """

    usd_per_answer: ClassVar[float] = 0.0
    path: Path = option(help="the file", exclude=True)
    judge: str | None = option(None, "whose rows; null: the file's only judge")

    def fingerprint(self) -> str:
        """Digest of the file."""
        return digest_files([existing(self.path)])

    def prepare(self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int) -> RecordedSession:
        """Read the file."""
        rows = read_preferences(self.path)
        judges = pc.unique(rows["judge"]).to_pylist()
        if self.judge is None and len(judges) > 1:
            raise UserError(
                f"{self.path}: holds the answers of {', '.join(map(repr, judges))}: name one judge "
                f"for each of them (judge.judges.NAME.judge), as conf/judge/zbench.yaml does"
            )
        if self.judge is not None:
            rows = rows.filter(pc.equal(rows["judge"], self.judge))
            if not len(rows):
                raise UserError(
                    f"{self.path}: no row of judge {self.judge!r}; there are "
                    f"{', '.join(map(repr, judges))}"
                )
        said: dict[tuple[str, str, str], list[tuple[float | None, str]]] = {}
        columns = (rows[name].to_pylist() for name in (*IDS, "score", "reasons"))
        for query_id, a, b, score, reasons in zip(*columns, strict=True):
            said.setdefault((query_id, a, b), []).append((score, reasons or ""))
        return RecordedSession(digest(["recorded", self.fingerprint(), self.judge]), said)


@dataclass(frozen=True)
class RecordedSession(LocalSession):
    """The rows of a file by query, document shown first and the other."""

    depends_on_ids: ClassVar[bool] = True
    fingerprint: str
    said: Mapping[tuple[str, str, str], Sequence[tuple[float | None, str]]]

    def in_its_order(self, question: Question) -> Question:
        """The comparison in the order in which it was shown when the answer was recorded."""
        other = swapped(question)
        as_it_stands, the_other_way = (
            (q.query_id, q.doc_a, q.doc_b) in self.said for q in (question, other)
        )
        return other if the_other_way and not as_it_stands else question

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """What is recorded in the order shown or, failing that, in the other."""
        return [self._one(question) for question in questions]

    def _one(self, q: Question) -> Answer:
        rows = self.said.get((q.query_id, q.doc_a, q.doc_b))
        sign = 1.0 if rows is not None else -1.0
        rows = rows or self.said.get((q.query_id, q.doc_b, q.doc_a))
        if rows is None or q.repeat > 0:
            return Answer(None, NOT_RECORDED)
        scores = [sign * score for score, _ in rows if score is not None]
        reasons = "\n\n".join(reasons for _, reasons in rows if reasons)
        if not scores:
            return Answer(None, FAILED, reasons)
        return Answer(sum(scores) / len(scores) + 0.0, ANSWERED, reasons)


def read_preferences(path: Path) -> Table:
    """Rows of a file of preferences: ids, `score`, `judge` and `reasons`.

    Raises `UserError` naming the file and what is wrong with it.
    """
    rows = read_rows(path)
    missing = [name for name in IDS if name not in rows.column_names]
    given = [name for name in ("p", "score") if name in rows.column_names]
    if missing or len(given) != 1:
        raise UserError(
            f"{path}: query_id, doc_a, doc_b and either p or score are needed; there are "
            f"{', '.join(rows.column_names)}"
        )
    columns = {}
    for name in (*IDS, "judge", "reasons"):
        if name not in rows.column_names:
            continue
        column, kind = rows[name], rows[name].type
        if not (is_text(kind) or pa.types.is_null(kind)):
            hint = ": quote ids" if name in IDS else ""
            raise UserError(f"{path}: {name} must be text, found {kind}{hint}")
        columns[name] = column.cast(pa.string())
        if name in IDS and column.null_count:
            row = pc.index(column.is_null(), True).as_py()
            raise UserError(f"{path}: row {row}: {name} is empty")
    try:
        value = rows[given[0]].cast(pa.float64())
    except pa.ArrowException:
        found = rows[given[0]].type
        raise UserError(f"{path}: {given[0]} must be a number, found {found}") from None
    low, high = (0.0, 1.0) if given[0] == "p" else (-1.0, 1.0)
    inside = pc.and_kleene(pc.greater_equal(value, low), pc.less_equal(value, high))
    outside = pc.index(pc.fill_null(pc.invert(inside), False), True).as_py()
    if outside >= 0:
        raise UserError(
            f"{path}: row {outside}: {given[0]} is {value[outside].as_py()}, not between {low:g} "
            f"and {high:g}"
        )
    score = value if given[0] == "score" else pc.subtract(1.0, pc.multiply(value, 2.0))
    for name, otherwise in (("judge", "recorded"), ("reasons", "")):
        if name not in columns:
            columns[name] = pa.array([otherwise] * len(rows), pa.string())
    return pa.table({**columns, "score": score})


def read_rows(path: Path) -> Table:
    """A table in Parquet or JSON lines; `UserError` where the file is missing or neither."""
    path = existing(path)
    with reading(path):
        if path.name.endswith((".jsonl", ".jsonl.gz")):
            return read_json_lines(path, (*IDS, "judge", "reasons"))
        return valid(pq.read_table(path), path)


def existing(path: Path) -> Path:
    """The path, `~` expanded; `UserError` where there is no such file."""
    path = path.expanduser()
    if not path.is_file():
        raise UserError(f"{path}: not found; a file of preferences is needed")
    return path
