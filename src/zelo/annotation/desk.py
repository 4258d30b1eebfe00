"""What people are asked and what they answered, kept in the ledger before anything is said."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zelo.annotation.pairs import Ids, ids_of
from zelo.data.collection import hash_share
from zelo.data.texts import document_texts, query_instructions, query_texts
from zelo.judging.ledger import Ledger, hash_of, ledger_question
from zelo.judging.person import CANNOT_SAY, PREFIX, PersonSession
from zelo.judging.question import ANSWERED, Answer, Question, swapped

SCORES = {"left": -1.0, "tie": 0.0, "right": 1.0}
CHOICES = (*SCORES, CANNOT_SAY)


@dataclass(frozen=True)
class Shown:
    """A pair as one person sees it."""

    number: int  # of the pair
    question: Question  # `doc_a` on the left

    def content(self) -> dict[str, Any]:
        """What the page is told."""
        q = self.question
        texts = {"left": q.text_a, "right": q.text_b}
        return {"number": self.number, "query": q.query, "instruction": q.instruction, **texts}


@dataclass
class Desk:
    """The pairs of one run, and everybody's answers to them."""

    pairs: Sequence[Ids]
    ledger: Ledger
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    instructions: Mapping[str, str]
    answers: dict[str, dict[int, Answer]] = field(default_factory=dict)  # of each, by pair
    given_now: dict[str, list[list[int]]] = field(default_factory=dict)
    """Pairs that each answered at once since the server was started, the latest last."""

    @staticmethod
    def of_all(
        data: Path, pairs: Sequence[Ids], ledger: Ledger, others: Iterable[str] = ()
    ) -> Desk:
        """Of these pairs, with the texts of a collection: of their documents, and of `others`."""
        wanted = {*others, *(doc_id for ids in pairs for doc_id in ids[1:])}
        documents = document_texts(data, wanted)
        return Desk(pairs, ledger, query_texts(data), documents, query_instructions(data))

    @staticmethod
    def of_collection(data: Path, pairs: Sequence[Ids], ledger: Ledger) -> Desk:
        """The same, of pairs of equal texts one alone."""
        desk = Desk.of_all(data, pairs, ledger)
        once = {desk.known(n): n for n in reversed(range(len(pairs)))}  # of equal texts the first
        return replace(desk, pairs=[pairs[n] for n in sorted(once.values())])

    def question(self, number: int) -> Question:
        """A pair in the order in which its answers are kept."""
        query_id, a, b = self.pairs[number]
        texts = self.queries[query_id], self.documents[a], self.documents[b]
        told = self.instructions.get(query_id, "")
        return PersonSession("").in_its_order(Question(query_id, a, b, 0, *texts, instruction=told))

    def known(self, number: int) -> Question:
        """The same as the ledger knows it: by its texts."""
        known = ledger_question(self.question(number), False)
        return replace(known, query_id="", doc_a="", doc_b="")

    def of(self, person: str) -> dict[int, Answer]:
        """All answers of one person, by number of the pair."""
        if person not in self.answers:
            known = [self.known(n) for n in range(len(self.pairs))]
            found = self.ledger.find(PersonSession(person).fingerprint, known)
            self.answers[person] = {n: answer for n, answer in enumerate(found) if answer}
        return self.answers[person]

    def next(self, person: str) -> Shown | None:
        """The next pair that a person has not answered; None where there is none."""
        answered = self.of(person)
        number = next((n for n in range(len(self.pairs)) if n not in answered), None)
        return None if number is None else self.shown(person, number)

    def shown(self, person: str, number: int) -> Shown:
        """A pair, with the document on the left that a hash puts there."""
        question = self.question(number)
        other = hash_share("\0".join([person, *self.pairs[number]])) < 0.5
        return Shown(number, swapped(question) if other else question)

    def answer(self, person: str, number: int, choice: object) -> bool:
        """Keep an answer; False where the pair was answered before, which counts.

        On return it is on disk. Raises `UserError` where it cannot be kept, `ValueError` where
        there is no such pair or choice.
        """
        if not 0 <= number < len(self.pairs) or choice not in CHOICES:
            raise ValueError(f"pair {number}, choice {choice!r}")
        answered = self.of(person)
        if number in answered:
            return False
        left = self.shown(person, number).question.doc_a == self.question(number).doc_a
        score = None if choice == CANNOT_SAY else SCORES[str(choice)]
        kept = self.keep(person, {number: answer_of(score if left or not score else -score)})
        if kept:
            self.given_now.setdefault(person, []).append(kept)
        return bool(kept)

    def keep(self, person: str, answers: Mapping[int, Answer]) -> list[int]:
        """Write answers by number of their pair, in the order in which answers are kept, all or
        none; the pairs that had none: of others, which another process may have written meanwhile,
        the first answer counts."""
        fingerprint = PersonSession(person).fingerprint
        known = {number: self.known(number) for number in answers}
        before = dict(zip(known, self.ledger.find(fingerprint, [*known.values()]), strict=True))
        new = [number for number in answers if before[number] is None]
        if new:
            self.ledger.keep([(fingerprint, known[number], answers[number]) for number in new])
        # As they are on disk: pairs of equal texts have one answer.
        there = dict(zip(known, self.ledger.find(fingerprint, [*known.values()]), strict=True))
        self.of(person).update({number: answer for number, answer in there.items() if answer})
        return [number for number in new if there[number] == answers[number]]

    def undo(self, person: str) -> Shown | None:
        """Take the latest answer since the server was started back; None where there is none."""
        taken_back = self.take_back(person)
        return self.shown(person, taken_back[0]) if taken_back else None

    def take_back(self, person: str) -> list[int]:
        """The pairs whose answers were given last since the server was started, without these."""
        if not self.given_now.get(person):
            return []
        numbers = self.given_now[person][-1]
        for number in numbers:
            self.ledger.withdraw(PersonSession(person).fingerprint, self.known(number))
        self.given_now[person].pop()
        for number in numbers:
            self.of(person).pop(number, None)
        return numbers

    def progress(self, person: str) -> dict[str, int]:
        """How far one is: pairs answered, and pairs in all."""
        return {"answered": len(self.of(person)), "asked": len(self.pairs)}

    @property
    def asked(self) -> str:
        """How much there is, in words."""
        return f"{len(self.pairs):,} pairs"

    def with_pairs_beyond(
        self, candidates: Mapping[str, Sequence[str]], given: Iterable[Ids] = ()
    ) -> Desk:
        """With the pairs of each query's candidates that somebody has compared and that are not
        among these (of lists, or of another run), and with those that are `given`."""
        compared: dict[bytes, set[tuple[bytes, bytes]]] = {}  # all by their texts
        for fingerprint in self.ledger.judges(PREFIX):
            for query, one, other in self.ledger.compared(fingerprint):
                compared.setdefault(query, set()).add((one, other))
        pairs = [*self.pairs]
        there = {(q, frozenset((self.documents[a], self.documents[b]))) for q, a, b in pairs}
        wanted: list[Ids] = [ids for ids in given if {*ids[1:]} <= {*candidates.get(ids[0], ())}]
        for query_id, doc_ids in candidates.items():
            told = self.instructions.get(query_id, "")
            asked = Question(query_id, "", "", 0, self.queries[query_id], "", "", instruction=told)
            of_query = compared.get(hash_of(ledger_question(asked, False).query), set())
            by_text = {hash_of(self.documents[d]): d for d in reversed(doc_ids)} if of_query else {}
            wanted += [
                ids_of(query_id, by_text[one], by_text[other])
                for one, other in sorted(of_query)
                if one in by_text and other in by_text
            ]
        for query_id, a, b in wanted:
            texts = query_id, frozenset((self.documents[a], self.documents[b]))
            if texts not in there:
                there.add(texts)
                pairs.append((query_id, a, b))
        return replace(self, pairs=pairs, answers={})

    def answered(self, people: Sequence[str]) -> list[tuple[Question, str, Answer]]:
        """All answers of people: the pair as its answers are kept, and whose it is."""
        return [
            (self.question(number), person, answer)
            for person in people
            for number, answer in sorted(self.of(person).items())
        ]


def answer_of(score: float | None) -> Answer:
    """A score in [−1, 1] as an answer; None: one cannot say."""
    return Answer(score, CANNOT_SAY if score is None else ANSWERED)
