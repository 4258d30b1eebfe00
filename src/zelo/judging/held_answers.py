"""Failed answers of a judge at an endpoint, held back until one answer is of use.

Where none is, the judge is given up and its configuration is what has to be mended: what it failed
at stays missing, and is asked again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from zelo.judging.base import RequestContext
from zelo.judging.question import Answer, Question

IN_A_ROW = 5  # questions without any answer before a judge is given up
TRIAL = 20  # questions whose answers are all of no use before a judge is given up
OFF = (
    "switch thinking off (extra_body={{chat_template_kwargs: {{enable_thinking: false}}}} for vLLM)"
)
ADVICE = {  # by the commonest problem
    "cut_off": "max_tokens={max_tokens} is too little for what it writes",
    "thoughts_only": (
        f"the endpoint gave thoughts and no answer: raise max_tokens={{max_tokens}}, or {OFF}"
    ),
    "too_long": (
        "show less of each document than max_document_tokens={max_document_tokens}, or give the "
        "server a longer context"
    ),
    "refused": "it refuses to compare these texts: take another model",
    "no_logprobs": (
        "the endpoint gives no log-probabilities of tokens: ask for reasons (judge=vllm), or take "
        "one that does"
    ),
    "no_grade": (
        f"none of 0, 1, 2, 3 is among the likeliest tokens that an answer begins with: {OFF}, or "
        f"take a model that was trained on instructions"
    ),
    "no_letter": (
        f"neither A nor B is among the likeliest tokens that an answer begins with: {OFF}, or "
        f"take a model that was trained on instructions"
    ),
}
KEEP_TO_THE_FORM = "provider.structured=json_schema has it keep to the form, where the endpoint can"


@dataclass
class HeldAnswers:
    """What one session was answered, as far as it says whether its judge is of use."""

    max_tokens: int  # that the judge may write
    max_document_tokens: int  # that it is shown of a document
    context: RequestContext = field(init=False)
    usable: bool = field(default=False, init=False)  # whether any answer was of use
    proved: asyncio.Event = field(init=False)  # set when one is; more are asked then
    _in_a_row: int = field(default=0, init=False)
    _answered: int = field(default=0, init=False)
    _rejected: list[tuple[Question, Answer]] = field(default_factory=list, init=False)
    _failed: list[tuple[Question, Answer]] = field(default_factory=list, init=False)

    def begin(self, context: RequestContext) -> None:
        """More questions are asked, and answers go to `context`."""
        self.context, self.usable = context, context.has_usable_answer
        self.proved = asyncio.Event()
        if self.usable:
            self.proved.set()

    def take(self, question: Question, answer: Answer) -> None:
        """Hand an answer on, or hold it: after `TRIAL` of no use the judge is given up."""
        self._in_a_row, self._answered = 0, self._answered + 1
        if answer.score is not None and not self.usable:
            self.usable = True
            self.proved.set()
            self._hand_on(self._failed)
        if self.usable:
            self.context.deliver(question, answer)
            return
        self._failed.append((question, answer))
        if len(self._failed) >= TRIAL and not self.context.given_up:
            self.context.given_up = self._of_no_use()

    def reject(self, question: Question, answer: Answer) -> None:
        """Hold what the endpoint said of a request that it does not take: all may be like that."""
        self._rejected.append((question, answer))

    def no_answer(self, trouble: str) -> None:
        """A question got none, whatever was tried: after `IN_A_ROW` the judge is given up."""
        self._in_a_row += 1
        if self._in_a_row >= IN_A_ROW:
            self.context.given_up = f"{IN_A_ROW} questions in a row without an answer: {trouble}"

    def end(self) -> None:
        """All questions were asked. Unless the judge was given up, hand on what was held."""
        if not self.context.given_up:
            self._hand_on(self._failed)  # too few to say that none is of use
            if self._answered:  # so it is these questions, and not the configuration
                self._hand_on(self._rejected)
        self._failed.clear()
        self._rejected.clear()

    def _hand_on(self, held: list[tuple[Question, Answer]]) -> None:
        for question, answer in held:
            self.context.deliver(question, answer)
        held.clear()

    def _of_no_use(self) -> str:
        """What is wrong with all answers so far, by the commonest problem."""
        kinds = Counter(answer.status for _, answer in self._failed)
        problem, n = kinds.most_common(1)[0]
        said = next(answer.reasons for _, answer in self._failed if answer.status == problem)
        advice = ADVICE.get(problem, KEEP_TO_THE_FORM).format(
            max_tokens=self.max_tokens, max_document_tokens=self.max_document_tokens
        )
        shown = f" ({' '.join(said.split())[:120]!r})" if said else ""
        return f"of {len(self._failed)} answers none is usable, {n} {problem}{shown}; {advice}"
