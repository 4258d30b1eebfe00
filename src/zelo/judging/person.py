"""A person as a judge: what was answered by `zelo annotate` lies in the ledger, and is used from
there; what was not answered stays missing."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from pydantic import field_validator

from zelo.config import option
from zelo.judging.base import BaseJudge, RemoteSession, RequestContext
from zelo.judging.question import Question, swapped
from zelo.judging.spending import Spending

LONGEST = 180  # bytes of a name in that of a lock file
PREFIX = "person:"  # begins what the ledger calls a person
CANNOT_SAY = "cannot_say"


class Person(BaseJudge):
    """`judge=person`: one who compared documents in the browser, by name."""

    usd_per_answer: ClassVar[float | None] = 0.0
    name: str = option(help="as it was given to `zelo annotate`")

    @field_validator("name")
    @classmethod
    def _checked(cls, name: str) -> str:
        return checked_name(name)

    def prepare(self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int) -> PersonSession:
        """Nothing is asked: the answers are in the ledger."""
        return PersonSession(self.name)


def checked_name(name: str) -> str:
    """A person's name as it is kept: spaces and composed letters in one form; `ValueError` where it
    is none, or too long for the file that is named by it."""
    name = unicodedata.normalize("NFC", " ".join(name.split()))
    if not name or not name.isprintable():
        raise ValueError(f"a name has letters that can be seen, found {name[:80]!r}")
    if len(quote(name, safe="")) > LONGEST:
        raise ValueError(f"too long a name: {name[:20]!r}...; its beginning will do")
    return name


class PersonSession(RemoteSession):
    """Answers of one person, from the ledger alone."""

    may_guess: ClassVar[bool] = False
    can_be_asked: ClassVar[bool] = False

    def __init__(self, name: str) -> None:
        self.fingerprint = PREFIX + quote(name, safe="")  # lock files are named by it

    @property
    def reads_instructions(self) -> bool:
        """They stand on the page."""
        return True

    def in_its_order(self, question: Question) -> Question:
        """The one order in which answers are kept, whatever stood on which side."""
        first = (question.text_a, question.doc_a) <= (question.text_b, question.doc_b)
        return question if first else swapped(question)

    def check(self, spending: Spending) -> None:
        """Nothing is needed."""

    async def answer_each(self, questions: Sequence[Question], context: RequestContext) -> None:
        """Nobody is at hand to be asked: all of them stay missing."""
