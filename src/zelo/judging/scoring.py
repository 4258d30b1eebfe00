"""Judges that score each document by itself: which of two is preferred follows from the difference.

What a difference is worth depends on whose scores they are: cosines lie close together, BM25 scores
far apart. Unless its factor is given, a judge finds it from the scores themselves: two documents
that are one standard deviation apart, as the candidates of a query are, have the log-odds `gain`.
A judge is then as sure of itself as any other, and none drowns the rest where they are averaged;
whose answers deserve more weight is for the ensemble to say, or for `rating.joint_judges` to find.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from zelo.config import option
from zelo.data.collection import hash_share
from zelo.data.texts import document_texts, query_instructions, query_texts
from zelo.judging.base import BaseJudge, LocalSession
from zelo.judging.question import Answer, Question
from zelo.store import digest

DOCUMENTS = 32  # of a query, at most, by which the spread of scores is measured
EQUAL = 1e-6  # scores that differ by less than this share of the largest are equal but for rounding

TextPair = tuple[Any, str]  # a query as the session reads it, mostly its text, and a document


@dataclass
class ScoringSession(LocalSession):
    """Scores documents for queries by their texts, and each pair once however often it is
    compared."""

    fingerprint: str  # of the scores, and once the factor is known of that too
    logit_scale: float = field(default=1.0, init=False)
    known: dict[TextPair, float] = field(default_factory=dict, init=False, repr=False)

    measured_by: ClassVar[int] = 1000
    """Pairs of query and document, about, by which the spread of scores is measured."""

    @abstractmethod
    def score(self, pairs: Sequence[TextPair]) -> Sequence[float]:
        """Scores of queries and documents, in their order."""

    def as_read(self, query: str, instruction: str) -> Any:
        """A query as `score` takes it, which can be hashed; here without its instruction."""
        return query

    def scores(self, pairs: Sequence[TextPair]) -> list[float]:
        """The same; those that were asked for before are not computed again."""
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self.known]
        if new:
            self.known.update(zip(new, self.score(new), strict=True))
        return [self.known[pair] for pair in pairs]

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Score each pair of query and document, and compare."""
        from scipy.special import expit

        scores = self.scores(
            [
                (self.as_read(query, told), text)
                for q in questions
                for (query, text), told in zip(q.pairs, q.instructions, strict=True)
            ]
        )
        gaps = np.array(scores[::2], np.float64) - np.array(scores[1::2], np.float64)
        p = expit(self.logit_scale * gaps)
        return [Answer(1.0 - 2.0 * value) for value in p.tolist()]


class ScoringJudge(BaseJudge):
    """`P(a ≻ b) = sigmoid(logit_scale · (s(q, a) − s(q, b)))` with scores `s`."""

    usd_per_answer: ClassVar[float | None] = 0.0
    logit_scale: float | None = option(
        None, "factor of the difference of two scores; null: matched to their spread", gt=0
    )
    gain: float = option(
        2.0,
        "where the factor is matched: log-odds of a document whose score is one standard deviation "
        "(within a query) above another's",
        gt=0,
    )

    @abstractmethod
    def session(self, data: Path) -> ScoringSession:
        """What scores, ready to be asked, with the collection in the folder `data` at hand."""

    def prepare(self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int) -> ScoringSession:
        """Load what scores and find the factor, which is part of the fingerprint.

        It is matched to the scores of some of `pairs`: always the same queries, whatever the seed.
        """
        session = self.session(data)
        if self.logit_scale is not None:
            session.logit_scale = self.logit_scale
        else:
            spread = spread_within(scores_of_some(session, data, pairs))
            # Three digits: scores that differ in their last bits make no other judge.
            session.logit_scale = float(f"{self.gain / (spread or 1.0):.3g}")
        session.fingerprint = digest([session.fingerprint, session.logit_scale])
        return session


def scores_of_some(
    session: ScoringSession, data: Path, pairs: Mapping[str, Sequence[str]]
) -> list[list[float]]:
    """Scores of some documents of some queries, about `session.measured_by` in all."""
    some = sample(pairs, session.measured_by)
    if not some:
        return []
    told, texts_of = query_instructions(data), query_texts(data)
    queries = {i: session.as_read(texts_of[i], told.get(i, "")) for i in some}
    documents = document_texts(data, {d for docs in some.values() for d in docs})
    texts = [(queries[query_id], documents[d]) for query_id, docs in some.items() for d in docs]
    scores = iter(session.scores(texts))
    return [[next(scores) for _ in docs] for docs in some.values()]


def sample(pairs: Mapping[str, Sequence[str]], number: int) -> dict[str, list[str]]:
    """About `number` of the pairs: queries that have several documents, drawn by a hash of their
    ids, so that one query more or less changes no other's part."""
    chosen: dict[str, list[str]] = {}
    left = number
    several = [query_id for query_id, docs in pairs.items() if len(docs) > 1]
    for query_id in sorted(several, key=hash_share):
        if left <= 0:
            break
        chosen[query_id] = sorted(pairs[query_id], key=hash_share)[:DOCUMENTS]
        left -= len(chosen[query_id])
    return chosen


def spread_within(scores: Sequence[Sequence[float]]) -> float:
    """Standard deviation of scores about the mean of their query, over all queries; 0 where they
    are equal but for rounding, or where no query has two."""
    rows = [np.asarray(row, np.float64) for row in scores if len(row) > 1]
    if not rows:
        return 0.0
    squares = sum(float(((row - row.mean()) ** 2).sum()) for row in rows)
    spread = float(np.sqrt(squares / sum(len(row) - 1 for row in rows)))
    return spread if spread > EQUAL * max(float(np.abs(row).max()) for row in rows) else 0.0
