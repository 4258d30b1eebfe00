"""What people are asked and what they answered, kept in the ledger before anything is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from zelo.annotation.pairs import Ids
from zelo.data.collection import hash_share
from zelo.data.texts import document_texts, query_instructions, query_texts
from zelo.judging.ledger import Ledger, ledger_question
from zelo.judging.person import CANNOT_SAY, PersonSession
from zelo.judging.question import ANSWERED, Answer, Question, swapped

SCORES = {"left": -1.0, "tie": 0.0, "right": 1.0}
CHOICES = (*SCORES, CANNOT_SAY)


@dataclass(frozen=True)
class Shown:
    """A pair as one person sees it."""

    number: int  # of the pair
    question: Question  # `doc_a` on the left


@dataclass
class Desk:
    """The pairs of one run, and everybody's answers to them."""

    pairs: Sequence[Ids]
    ledger: Ledger
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    instructions: Mapping[str, str]
    answers: dict[str, dict[int, Answer]] = field(default_factory=dict)  # of each, by pair
    given_now: dict[str, list[int]] = field(default_factory=dict)  # to be undone, the latest last

    @staticmethod
    def of_collection(data: Path, pairs: Sequence[Ids], ledger: Ledger) -> Desk:
        """With the texts of a collection."""
        wanted = {doc_id for ids in pairs for doc_id in ids[1:]}
        documents = document_texts(data, wanted)
        desk = Desk(pairs, ledger, query_texts(data), documents, query_instructions(data))
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

    def answer(self, person: str, number: int, choice: str) -> bool:
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
        score = SCORES.get(choice)
        if score is None:
            answer = Answer(None, CANNOT_SAY)
        else:
            answer = Answer(score if left or not score else -score, ANSWERED)
        if not self.keep(person, number, answer):
            return False
        self.given_now.setdefault(person, []).append(number)
        return True

    def keep(self, person: str, number: int, answer: Answer) -> bool:
        """Write an answer, in the order in which answers are kept; False where another process has
        written one meanwhile, which counts."""
        fingerprint, known = PersonSession(person).fingerprint, self.known(number)
        (before,) = self.ledger.find(fingerprint, [known])
        if before is None:
            self.ledger.keep([(fingerprint, known, answer)])
        self.of(person)[number] = before or answer
        return before is None

    def undo(self, person: str) -> Shown | None:
        """Take the latest answer since the server was started back; None where there is none."""
        if not self.given_now.get(person):
            return None
        number = self.given_now[person][-1]
        self.ledger.withdraw(PersonSession(person).fingerprint, self.known(number))
        self.given_now[person].pop()
        del self.answers[person][number]
        return self.shown(person, number)

    def progress(self, person: str) -> dict[str, int]:
        """How far one is: pairs answered, of these at random, and pairs in all."""
        return {"answered": len(self.of(person)), "pairs": len(self.pairs)}

    def answered(self, people: Sequence[str]) -> list[tuple[Question, str, Answer]]:
        """All answers of people: the pair as its answers are kept, and whose it is."""
        return [
            (self.question(number), person, answer)
            for person in people
            for number, answer in sorted(self.of(person).items())
        ]
