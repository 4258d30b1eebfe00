"""Lists of documents that people order, in place of comparing two: an order is kept as what it says
of each of its pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, NamedTuple

from zelo.annotation.desk import Desk, answer_of
from zelo.annotation.pairs import Ids
from zelo.data.collection import hash_share
from zelo.judging.question import Answer
from zelo.rating.rate_lists import which_is_above


class DocumentList(NamedTuple):
    """Documents of one query, to be ordered."""

    query_id: str
    doc_ids: tuple[str, ...]

    @property
    def pairs(self) -> list[Ids]:
        """All pairs of them, in the order of their ids."""
        return [(self.query_id, a, b) for a, b in combinations(sorted(self.doc_ids), 2)]


def lists_of(pairs: Sequence[Ids], size: int, documents: Mapping[str, str]) -> list[DocumentList]:
    """Lists of at most `size` documents that have each of the pairs, but for those of equal texts.

    A list begins with the first pair that none has, in the order in which pairs would be asked
    about, and grows by the document that has most such pairs with it, so that it says much of what
    judges were asked too. `documents` has their texts.
    """
    left: dict[str, dict[str, set[str]]] = {}  # query → document → those it has a pair with
    for query_id, a, b in pairs:
        if documents[a] == documents[b]:
            continue
        of_query = left.setdefault(query_id, {})
        of_query.setdefault(a, set()).add(b)
        of_query.setdefault(b, set()).add(a)
    found = []
    for query_id, a, b in pairs:
        near = left.get(query_id, {})
        if b not in near.get(a, ()):
            continue
        chosen = [a, b]
        while len(chosen) < size:
            shown = {documents[d] for d in chosen}
            shared = {
                d: len(near[d].intersection(chosen)) for d in near if documents[d] not in shown
            }
            best = max(shared, key=lambda d: shared[d], default=None)
            if best is None or not shared[best]:
                break
            chosen.append(best)
        for doc_id in chosen:
            near[doc_id] -= {*chosen}
        found.append(DocumentList(query_id, tuple(chosen)))
    return found


@dataclass(frozen=True)
class ShownList:
    """A list as one person sees it."""

    number: int
    query: str
    instruction: str
    doc_ids: Sequence[str]  # in the order shown, as are texts and places
    texts: Sequence[str]
    places: Sequence[int | None] = ()  # that were taken back, to be put right

    def content(self) -> dict[str, Any]:
        """What the page is told."""
        told = {"query": self.query, "instruction": self.instruction}
        return {"number": self.number, **told, "texts": self.texts, "places": self.places}


@dataclass
class ListDesk:
    """The lists of one run, and everybody's orders, on a `desk` that has all their pairs."""

    desk: Desk
    lists: Sequence[DocumentList]
    pairs: Sequence[Sequence[int]] = field(init=False)  # of each list, as the desk numbers them
    ordered_now: dict[str, list[tuple[int, list[int | None]]]] = field(default_factory=dict)
    """Lists that each ordered since the server was started, and how, the latest last."""

    def __post_init__(self) -> None:
        number = {ids: n for n, ids in enumerate(self.desk.pairs)}
        self.pairs = [[number[ids] for ids in one.pairs] for one in self.lists]

    def is_ordered(self, person: str, number: int) -> bool:
        """Whether a person has answered all its pairs."""
        answered = self.desk.of(person)
        return all(pair in answered for pair in self.pairs[number])

    def next(self, person: str) -> ShownList | None:
        """The next list that a person has not ordered; None where there is none."""
        numbers = range(len(self.lists))
        number = next((n for n in numbers if not self.is_ordered(person, n)), None)
        return None if number is None else self.shown(person, number)

    def shown(self, person: str, number: int) -> ShownList:
        """A list, in an order that a hash draws."""
        query_id, doc_ids = self.lists[number]
        drawn = sorted(doc_ids, key=lambda d: hash_share("\0".join([person, query_id, d])))
        texts = [self.desk.documents[doc_id] for doc_id in drawn]
        told = self.desk.instructions.get(query_id, "")
        return ShownList(number, self.desk.queries[query_id], told, drawn, texts)

    def answer(self, person: str, number: int, places: object) -> bool:
        """Keep an order: the place of each document in the order shown, 0 the best, equal ones
        tied, None where one cannot say; False where all its pairs were answered before.

        A pair that was answered before stays as it was. On return all is on disk. Raises
        `UserError` where it cannot be kept, `ValueError` where there is no such list or order.
        """
        if not 0 <= number < len(self.lists):
            raise ValueError(f"list {number}")
        shown = self.shown(person, number)
        if (
            not isinstance(places, list)
            or len(places) != len(shown.doc_ids)
            or not all(p is None or (type(p) is int and p >= 0) for p in places)
        ):
            raise ValueError(f"list {number}, places {places!r}")
        place = dict(zip(shown.doc_ids, places, strict=True))
        answers: dict[int, Answer] = {}
        for pair in self.pairs[number]:
            question = self.desk.question(pair)
            answers[pair] = answer_of(which_is_above(place[question.doc_a], place[question.doc_b]))
        kept = self.desk.keep(person, answers)
        if kept:
            self.desk.given_now.setdefault(person, []).append(kept)
            self.ordered_now.setdefault(person, []).append((number, places))
        return bool(kept)

    def undo(self, person: str) -> ShownList | None:
        """Take the latest order since the server was started back, to be put right; None where
        there is none."""
        if not self.desk.take_back(person):
            return None
        number, places = self.ordered_now[person].pop()
        return replace(self.shown(person, number), places=places)

    def progress(self, person: str) -> dict[str, int]:
        """How far one is: lists ordered, and lists in all."""
        ordered = sum(self.is_ordered(person, number) for number in range(len(self.lists)))
        return {"answered": ordered, "asked": len(self.lists)}

    @property
    def asked(self) -> str:
        """How much there is, in words."""
        return f"{len(self.lists):,} lists"
