"""A judge: the document that comes first in a dictionary."""

from zelo.config import describe
from zelo.judging.base import BaseJudge, LocalSession
from zelo.judging.question import Answer
from zelo.store import digest


class AlphabetSession(LocalSession):
    def __init__(self, fingerprint):
        self.fingerprint = fingerprint

    def answer(self, questions):
        return [Answer(-1.0 if q.text_a < q.text_b else 1.0) for q in questions]


class Alphabet(BaseJudge):
    usd_per_answer = 0.0

    def prepare(self, data, pairs, seed):
        return AlphabetSession(digest(describe(self)))
