"""A language model behind an endpoint that answers with one token: no prose is paid for.

The log-probabilities of A and B, as servers of one's own give them (vLLM, SGLang, llama.cpp), are
the answer: tens of times cheaper than reasons, and never cut off, malformed or talked around. A
model leans to one of the letters more than when it gives reasons, so that both orders are asked.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from zelo.config import option
from zelo.judging import prompt
from zelo.judging.api import FORMATS, ApiJudge, ApiSession
from zelo.judging.estimate import JudgeEstimate, JudgeWorkload
from zelo.judging.question import Question
from zelo.judging.reply import Reply
from zelo.judging.wire import RequestOutcome

PROMPT = "choose"
LIKELIEST = 20  # tokens whose log-probabilities are asked for: as many as endpoints give


class OneToken(ApiJudge):
    """Compares by `P(A) / (P(A) + P(B))` of the first token of an answer to `prompts/choose.md`."""

    compares_queries: ClassVar[bool] = False
    orders_lists: ClassVar[bool] = False
    max_tokens: int = option(1, "most tokens it may write; more where a space comes first", ge=1)
    expected_output_tokens: int = option(1, "written for one answer", ge=1, exclude=True)

    def fingerprint(self) -> str:
        """Digest of the prompt."""
        return prompt.prompt_hash(PROMPT)

    def prepare(self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int) -> OneTokenSession:
        """Nothing is loaded and no key is read before there is something to ask."""
        return OneTokenSession(self.session_fingerprint(PROMPT), self)

    def estimate(
        self, name: str, workload: JudgeWorkload, asked_by: str = PROMPT, documents: float = 2
    ) -> JudgeEstimate:
        """As of one that gives reasons, with another prompt and one token to write."""
        return super().estimate(name, workload, asked_by, documents)

    def body(
        self, messages: prompt.Messages, formats: Mapping[str, Any] = FORMATS
    ) -> dict[str, Any]:
        """The request, which asks for log-probabilities; its form is not constrained."""
        asked = {"logprobs": True, "top_logprobs": LIKELIEST}
        return super().body(messages, {}) | asked


@dataclass
class OneTokenSession(ApiSession):
    """An endpoint whose answers are read off its log-probabilities."""

    corrects: ClassVar[bool] = False

    def prompt_for(self, question: Question) -> str:
        """The prompt that wants a letter."""
        return PROMPT

    def read(self, outcome: RequestOutcome, question: Question) -> Reply:
        """P(B) - P(A), of the two.

        Of a letter that is not among the likeliest tokens no more is known than that it is less
        likely than those, and it is taken to be as likely as the last of them: with twenty of them
        that is hardly anything. Where neither is there, there is no answer.
        """
        likeliest = outcome.first_tokens
        if not likeliest:
            return Reply(None, outcome.text, "no_logprobs")
        a, b = ([p for token, p in likeliest.items() if token.strip() == letter] for letter in "AB")
        if not a and not b:
            return Reply(None, " ".join(likeliest), "no_letter")
        least = [min(likeliest.values())]
        log_odds = log_sum(b or least) - log_sum(a or least)
        return Reply(math.tanh(log_odds / 2), f"log P(B)/P(A) = {log_odds:.4g}")


def log_sum(log_probabilities: Sequence[float]) -> float:
    """Logarithm of the sum of probabilities."""
    highest = max(log_probabilities)
    if highest == -math.inf:
        return -1e3  # as endpoints write what cannot be: below any that can
    return highest + math.log(sum(math.exp(p - highest) for p in log_probabilities))
