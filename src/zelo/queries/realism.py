"""A language model's word on whether a person would ask what was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from zelo.judging.api import ApiJudge, ApiSession
from zelo.judging.question import Answer, Question
from zelo.judging.reply import form
from zelo.queries.base import WritingContext
from zelo.queries.paid_answers import paid_answers

PROMPT = "realistic"
NAME = "realism"  # what messages call the one who is asked
SCORE = {"type": "number", "description": "between -1 (nobody would ask it) and 1"}


@dataclass
class RealismSession(ApiSession):
    """An endpoint that is asked about one query at a time, by `prompts/realistic.md`."""

    formats: ClassVar[Mapping[str, Any]] = form(
        NAME, {"reasons": {"type": "string"}, "score": SCORE}
    )

    def prompt_for(self, question: Question) -> str:
        """The prompt about realism."""
        return PROMPT


def realism(
    model: ApiJudge, texts: Mapping[str, str], context: WritingContext
) -> dict[str, Answer | None]:
    """What is answered of each query (id → text): a score from −1, nobody would ask it, to 1; None
    where there is no answer yet. What is asked is paid for once, as judges' answers are;
    `UserError` where the budget is reached or nobody can be asked."""
    session = RealismSession(model.session_fingerprint(PROMPT), model)
    questions = [Question(key, "", "", 0, text, "", "") for key, text in texts.items()]
    return dict(zip(texts, paid_answers(NAME, session, questions, context), strict=True))
