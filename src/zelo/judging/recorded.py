"""Preferences that are already there, as a judge: of people, or bought elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow.compute as pc

from zelo.config import option
from zelo.data.preference_file import IDS, existing, read_preferences
from zelo.errors import UserError
from zelo.judging.base import BaseJudge, LocalSession
from zelo.judging.question import ANSWERED, FAILED, Answer, Question, swapped
from zelo.store import digest, digest_files

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

    @property
    def knows_given_queries_only(self) -> bool:
        """Yes."""
        return True

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
