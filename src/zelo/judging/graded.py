"""A language model behind an endpoint that grades one document at a time, from 0 to 3.

A document is read once, however often it is compared, and grades of all queries are on one level.
By the log-probabilities of the four digits a grade is their expected value, which tells apart what
a whole grade would leave equal. What the model would see of two documents side by side it does not.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from zelo.config import option
from zelo.judging import prompt
from zelo.judging.api import ApiJudge, ApiSession
from zelo.judging.estimate import JudgeEstimate, JudgeWorkload
from zelo.judging.one_token import LIKELIEST
from zelo.judging.question import ANSWERED, Answer, Question
from zelo.judging.reply import Reply
from zelo.judging.thoughts import answer_and_thoughts
from zelo.judging.wire import RequestOutcome
from zelo.store import digest

PROMPT = "grade"
GRADES = (0, 1, 2, 3)
WRITTEN = re.compile(r"[\s*`\"'(\[]*([0-3])[\s*`\"')\].]*")


class Grader(ApiJudge):
    """`P(a ≻ b) = sigmoid(logit_scale · (g_a − g_b))` with grades by `prompts/grade.md`."""

    orders_lists: ClassVar[bool] = False
    max_tokens: int = option(1, "most tokens it may write; more where it thinks first", ge=1)
    expected_output_tokens: int = option(1, "written for one answer", ge=1, exclude=True)
    logit_scale: float = option(2.0, "log-odds of a document one grade above another", gt=0)
    whole: bool = option(
        False, "grades as they are written, for endpoints that give no log-probabilities"
    )

    def fingerprint(self) -> str:
        """Digest of the prompt."""
        return prompt.prompt_hash(PROMPT)

    def prepare(self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int) -> GradeSession:
        """Nothing is loaded and no key is read before there is something to ask."""
        asked = [self.session_fingerprint(PROMPT), *["whole"] * self.whole]
        return GradeSession(digest(asked), self)

    def estimate(
        self, name: str, workload: JudgeWorkload, asked_by: str = PROMPT, documents: float = 1
    ) -> JudgeEstimate:
        """One question for each document of each query."""
        least, most = (min(calls, workload.documents) for calls in workload.calls)
        asked = replace(workload, calls=(least, most), probe_calls=0.0)
        return super().estimate(name, asked, asked_by, documents)

    def body(
        self, messages: prompt.Messages, formats: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The request, which asks for log-probabilities; its form is not constrained."""
        asked = {} if self.whole else {"logprobs": True, "top_logprobs": LIKELIEST}
        return super().body(messages, {}) | asked


@dataclass
class GradeSession(ApiSession):
    """An endpoint that is asked about documents."""

    may_guess: ClassVar[bool] = False
    grades_documents: ClassVar[bool] = True
    judge: Grader

    def prompt_for(self, question: Question) -> str:
        """The prompt that wants a digit."""
        return PROMPT

    def read(self, outcome: RequestOutcome, question: Question) -> Reply:
        """The grade, from −1 for 0 to 1 for 3; of log-probabilities the mean of the four, weighted
        by how likely each is."""
        if self.judge.whole:
            answer, _, ended = answer_and_thoughts(outcome.text)
            written = WRITTEN.fullmatch(answer) if ended else None
            if written is None:
                problem = "unparsable" if outcome.kind == "reply" else "cut_off"
                return Reply(None, outcome.text, "unparsable" if answer.strip() else problem)
            return reply_of(float(written[1]))
        likeliest = outcome.first_tokens
        if not likeliest:
            return Reply(None, outcome.text, "no_logprobs")
        weights = [
            sum(math.exp(p) for token, p in likeliest.items() if token.strip() == str(grade))
            for grade in GRADES
        ]
        if not sum(weights):
            return Reply(None, " ".join(likeliest), "no_grade")
        return reply_of(sum(g * w for g, w in zip(GRADES, weights, strict=True)) / sum(weights))

    def compared(self, first: Answer, second: Answer) -> Answer:
        """What grades of two documents say of them."""
        if first.score is None or second.score is None:
            return first if first.score is None else second
        gap = (first.score - second.score) * GRADES[-1] / 2
        return Answer(-math.tanh(self.judge.logit_scale * gap / 2), ANSWERED)


def reply_of(grade: float) -> Reply:
    """A grade as the ledger keeps it."""
    grade = min(max(grade, GRADES[0]), GRADES[-1])  # sums round
    return Reply(2 * grade / GRADES[-1] - 1, f"grade {grade:.4g}")
