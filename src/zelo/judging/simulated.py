"""Simulated judges: a view of relevance under a noise model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from zelo.config import Component, describe, option
from zelo.judging.base import BaseJudge, LocalSession
from zelo.judging.list_reply import ListReply, Places
from zelo.judging.lists import list_answer, shown_ids
from zelo.judging.question import FAILED, Answer, Question
from zelo.judging.views import Grades, Pairs, Planted, Scores
from zelo.seeding import stream
from zelo.store import digest


@runtime_checkable
class View(Protocol):
    """Where hidden scores come from (`views.py`)."""

    def hidden_scores(self, data: Path, pairs: Pairs) -> Scores:
        """Hidden score of every pair of query and document."""
        ...


class Noise(Component):
    """METHOD's noise model of an LLM judge, with an option for each fault of a real one.

    `P(a ≻ b) = (1 − guess) · sigmoid(s_a − s_b + position_bias + N(0, spread²)) + guess · U(0, 1)`

    A block is ordered as Plackett and Luce have it: by `s + N(0, list_spread²) + Gumbel(0, 1)`,
    with a slot's advantage, the best first. Of two documents that is one draw by `sigmoid(s_a −
    s_b)`.
    """

    spread: float = option(0.2, "standard deviation of the noise on s_a − s_b", ge=0)
    guess: float = option(
        0.02, "weight of an answer that has nothing to do with the texts", ge=0, le=1
    )
    position_bias: float = option(0.0, "added for the document shown first, in units of s")
    tie_width: float = option(0.0, "answers with |score| below this are ties", ge=0, le=1)
    list_spread: float = option(
        0.0, "standard deviation of the noise on each s of a document in a block", ge=0
    )
    list_slots: float = option(
        0.0, "the first slot of a block is better by it than the last, in units of s"
    )
    failure_rate: float = option(0.0, "share of questions that get no usable answer", ge=0, le=1)


S = TypeVar("S", bound="SimulatedSession")


class Simulated(BaseJudge):
    """A judge that sees a `view` of the documents and answers under `noise`."""

    compares_queries: ClassVar[bool] = True
    orders_lists: ClassVar[bool] = True
    usd_per_answer: ClassVar[float] = 0.0
    view: View = option(help="hidden scores it answers from")
    noise: Noise = option(Noise(), help="how it errs")

    @property
    def knows_given_queries_only(self) -> bool:
        """Whether its view is of labels, or of scores in a file."""
        return isinstance(self.view, Grades | Planted)

    def prepare(self, data: Path, pairs: Pairs, seed: int) -> SimulatedSession:
        """Compute the hidden scores of `pairs`; their values are part of the fingerprint."""
        return self._session(SimulatedSession, data, pairs, seed)

    def prepare_lists(self, data: Path, pairs: Pairs, seed: int) -> SimulatedOrderSession:
        """The same, to order blocks."""
        return self._session(SimulatedOrderSession, data, pairs, seed)

    def _session(self, kind: type[S], data: Path, pairs: Pairs, seed: int) -> S:
        scores = self.view.hidden_scores(data, pairs)
        content = sorted((*key, round(value, 9)) for key, value in scores.items())
        asked = [describe(self), seed, content, *kind.asked_of]
        return kind(digest(asked), scores, self.noise, seed)


@dataclass(frozen=True)
class SimulatedSession(LocalSession):
    """A simulated judge with its hidden scores at hand."""

    depends_on_ids: ClassVar[bool] = True
    asked_of: ClassVar[tuple[str, ...]] = ()  # what sets its answers apart from those about two
    fingerprint: str
    scores: Scores
    noise: Noise
    seed: int

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers that depend on the question alone, not on what else is asked beside it."""
        from scipy.special import expit, ndtri

        if not questions:
            return []
        s_a, s_b = (np.array([self.scores[q.ids[side]] for q in questions]) for side in (0, 1))
        u = np.stack([self._uniforms(question) for question in questions])
        noise = self.noise
        gap = s_a - s_b + noise.position_bias + noise.spread * ndtri(u[:, 0])
        preference = (1 - noise.guess) * expit(gap) + noise.guess * u[:, 1]
        score = 1.0 - 2.0 * preference
        score[np.abs(score) < noise.tie_width] = 0.0
        failed = u[:, 2] < noise.failure_rate
        return [
            Answer(None, FAILED) if lost else Answer(float(value))
            for value, lost in zip(score, failed, strict=True)
        ]

    def _uniforms(self, question: Question) -> NDArray[np.float64]:
        """Three numbers in (0, 1) drawn from a hash of seed and question."""
        q = question
        asked = [q.query_id, q.doc_a, *([q.query_b] if q.query_b else []), q.doc_b, str(q.repeat)]
        key = "\x1f".join([str(self.seed), *asked])
        raw = hashlib.blake2b(key.encode(), digest_size=24).digest()
        return (np.frombuffer(raw, dtype=">u8").astype(np.float64) + 0.5) / 2.0**64


class SimulatedOrderSession(SimulatedSession):
    """One that orders blocks."""

    asked_of: ClassVar[tuple[str, ...]] = ("blocks",)

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """An order of each block."""
        return [self._order(question) for question in questions]

    def _order(self, question: Question) -> Answer:
        noise, ids = self.noise, shown_ids(question)
        rng = stream(self.seed, "order", question.query_id, question.doc_a, str(question.repeat))
        lost, guessed = rng.random(2)
        gumbel, normal = rng.gumbel(size=len(ids)), rng.normal(size=len(ids))
        if lost < noise.failure_rate:
            return Answer(None, FAILED)
        score = np.array([self.scores[question.query_id, doc_id] for doc_id in ids])
        slots = noise.list_slots * (0.5 - np.linspace(0, 1, len(ids)))
        seen = score + noise.list_spread * normal + slots
        order = np.argsort(-(gumbel + (0.0 if guessed < noise.guess else seen)), kind="stable")
        places: Places = [int(place) for place in np.argsort(order)]
        return list_answer(ListReply(places))
