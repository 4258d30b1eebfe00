"""What people are asked and what they answered, kept in the ledger before anything is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from zelo.annotation.pairs import AskedPair, is_random
from zelo.data.collection import hash_share
from zelo.data.texts import document_texts, query_instructions, query_texts
from zelo.errors import UserError
from zelo.judging.ledger import Ledger, ledger_question
from zelo.judging.person import CANNOT_SAY, PersonSession
from zelo.judging.question import ANSWERED, Answer, Question, swapped

SCORES = {"left": -1.0, "tie": 0.0, "right": 1.0}
CHOICES = (*SCORES, CANNOT_SAY)
LONGEST_NAME = 60


@dataclass(frozen=True)
class Shown:
    """A pair as one person sees it."""

    number: int  # of the pair
    question: Question  # `doc_a` on the left


@dataclass
class Desk:
    """The pairs of one run, and everybody's answers to them."""

    pairs: Sequence[AskedPair]
    ledger: Ledger
    queries: Mapping[str, str]
    documents: Mapping[str, str]
    instructions: Mapping[str, str]
    answers: dict[str, dict[int, Answer]] = field(default_factory=dict)  # of each, by pair
    given_now: dict[str, list[int]] = field(default_factory=dict)  # to be undone, the latest last

    @staticmethod
    def of_collection(data: Path, pairs: Sequence[AskedPair], ledger: Ledger) -> Desk:
        """With the texts of a collection."""
        wanted = {doc_id for pair in pairs for doc_id in pair.ids[1:]}
        documents = document_texts(data, wanted)
        return Desk(pairs, ledger, query_texts(data), documents, query_instructions(data))

    def question(self, number: int) -> Question:
        """A pair in the order in which its answers are kept."""
        query_id, a, b = self.pairs[number].ids
        texts = self.queries[query_id], self.documents[a], self.documents[b]
        told = self.instructions.get(query_id, "")
        return PersonSession("").in_its_order(Question(query_id, a, b, 0, *texts, instruction=told))

    def of(self, person: str) -> dict[int, Answer]:
        """All answers of one person, by number of the pair."""
        if person not in self.answers:
            known = [ledger_question(self.question(n), False) for n in range(len(self.pairs))]
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
        other = hash_share("\0".join([person, *self.pairs[number].ids])) < 0.5
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
        self.keep(person, number, answer)
        self.given_now.setdefault(person, []).append(number)
        return True

    def keep(self, person: str, number: int, answer: Answer) -> None:
        """Write an answer, in the order in which answers are kept."""
        known = ledger_question(self.question(number), False)
        self.ledger.keep([(PersonSession(person).fingerprint, known, answer)])
        self.of(person)[number] = answer

    def undo(self, person: str) -> Shown | None:
        """Take the latest answer since the page was opened back; None where there is none."""
        if not self.given_now.get(person):
            return None
        number = self.given_now[person].pop()
        known = ledger_question(self.question(number), False)
        self.ledger.withdraw(PersonSession(person).fingerprint, known)
        del self.answers[person][number]
        return self.shown(person, number)

    def progress(self, person: str) -> dict[str, int]:
        """How far one is: pairs answered, of these at random, and pairs in all."""
        answered = self.of(person)
        drawn = sum(is_random(self.pairs[n].ids) for n in answered)
        return {"answered": len(answered), "random": drawn, "pairs": len(self.pairs)}


def checked_name(name: str) -> str:
    """A person's name without spaces around it; `UserError` where it is none."""
    name = " ".join(name.split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable() or len(quote(name)) > 180:
        raise UserError(f"a name has 1 to {LONGEST_NAME} characters, found {name[:80]!r}")
    return name
