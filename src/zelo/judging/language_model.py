"""A causal language model on this machine, as a judge: the logits of its two possible answers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from zelo.config import option
from zelo.data.token_estimate import estimated_tokens
from zelo.errors import UserError
from zelo.judging import prompt
from zelo.judging.base import BaseJudge, LocalSession
from zelo.judging.estimate import LocalReading, TextLengths
from zelo.judging.question import Answer, Question
from zelo.models.batching import by_length
from zelo.models.pretrained import PretrainedModel
from zelo.progress import tell
from zelo.store import digest

SHORTEST = 16  # tokens of each text that a prompt has room for


class LanguageModel(BaseJudge):
    """Compares by `P(A) / (P(A) + P(B))`, A and B being the next token of `prompts/choose.md`."""

    usd_per_answer: ClassVar[float] = 0.0
    pretrained: PretrainedModel = option(help="a causal language model")
    max_document_tokens: int = option(
        512, "of each document at most about so many tokens are shown", ge=16
    )
    both_orders: bool = option(True, "average over both orders, which takes out position bias")
    precision: str = option("auto", "auto: as saved", pattern="^(auto|float32|bfloat16|float16)$")
    batch_size: int = option(8, "prompts read at once", ge=1, exclude=True)

    def fingerprint(self) -> str:
        """Digest of the prompt."""
        return prompt.prompt_hash("choose")

    def prepare(
        self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int
    ) -> LanguageModelSession:
        """Load model and tokenizer, on the GPU where there is one."""
        from zelo.models.causal import load_causal_model

        model, tokenizer = load_causal_model(self.pretrained.locate(), self.precision)
        tokenizer.padding_side = "left"
        how = [
            prompt.prompt_hash("choose"),
            self.max_document_tokens,
            self.both_orders,
            self.precision,
        ]
        return LanguageModelSession(
            digest(["language_model", self.pretrained.fingerprint(), *how]),
            self,
            model,
            tokenizer,
        )

    def local_reading(self, lengths: TextLengths) -> LocalReading:
        """A prompt with both documents, in one order or in two."""
        frame = estimated_tokens(" ".join(prompt.sections("choose").values()))
        asked = lengths.query_tokens + lengths.instruction_tokens
        tokens = asked + frame + 2 * lengths.truncated(self.max_document_tokens)
        return LocalReading(self.pretrained, tokens * (2 if self.both_orders else 1))


@dataclass
class LanguageModelSession(LocalSession):
    """The loaded model."""

    questions_per_batch: ClassVar[int] = 32
    may_guess: ClassVar[bool] = True
    fingerprint: str
    judge: LanguageModel
    model: Any
    tokenizer: Any
    choices: list[list[int]] = field(init=False)  # ids of the tokens that mean A, and B
    special: re.Pattern[str] = field(init=False)  # what its tokenizer takes for a control token
    longest: int | None = field(init=False)  # tokens of a prompt that the model can read

    def __post_init__(self) -> None:
        from zelo.models.causal import control_tokens
        from zelo.models.loading import usable_length

        self.choices = [self._ids(letter) for letter in "AB"]
        self.special = control_tokens(self.tokenizer)
        self.longest = usable_length(self.model)
        frame = len(self.encoded(Question("", "", "", 0, "", "", ""), SHORTEST, "0" * 12))
        if self.longest is not None and frame + 3 * SHORTEST > self.longest:
            raise UserError(
                f"judge: {self.judge.pretrained.name}: it reads {self.longest} tokens, and "
                f"{frame} of them are the prompt without its texts; choose another model"
            )

    @property
    def reads_instructions(self) -> bool:
        """They are part of the prompt."""
        return True

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many of `texts` are longer than what is shown of a document."""
        return sum(bool(prompt.shown(text, self.judge.max_document_tokens)[1]) for text in texts)

    def _ids(self, letter: str) -> list[int]:
        """Ids of the tokens that stand for an answer, with and without a space before it."""
        encoded = [
            self.tokenizer.encode(text, add_special_tokens=False) for text in (letter, f" {letter}")
        ]
        unknown = self.tokenizer.unk_token_id
        ids = {ids[0] for ids in encoded if len(ids) == 1 and ids[0] != unknown}
        if not ids:
            raise UserError(
                f"judge: {self.judge.pretrained.name}: its vocabulary has no token {letter!r}"
            )
        return sorted(ids)

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Score `1 − 2 P(A)` of each question; similar lengths are read together."""
        if not self.judge.both_orders:
            return self.answer_in_one_order(questions)
        orders = (False, True)
        p = self.preference([self.prompt_of(q, swapped) for q in questions for swapped in orders])
        pairs = zip(p[::2], p[1::2], strict=True)
        return [Answer(1 - 2 * ((first + (1 - second)) / 2)) for first, second in pairs]

    def answer_in_one_order(self, questions: Sequence[Question]) -> list[Answer]:
        """Score `1 − 2 P(A)` of each question as it is shown."""
        return [Answer(1 - 2 * p) for p in self.preference([self.prompt_of(q) for q in questions])]

    def prompt_of(self, q: Question, swapped: bool = False) -> list[int]:
        """Token ids of the question, up to where the answer stands; texts are cut until it fits."""
        texts = (q.query, q.text_b, q.text_a) if swapped else (q.query, q.text_a, q.text_b)
        query, a, b, told = (
            self.special.sub(prompt.broken, text) for text in (*texts, q.instruction)
        )
        shown = Question(q.query_id, q.doc_a, q.doc_b, q.repeat, query, a, b, instruction=told)
        # The same marker code whenever the same is asked, so that the answer is the same too.
        asked = [*([told] if told else []), query, a, b]
        code = hashlib.sha256("\x1f".join(asked).encode("utf-8", "replace")).hexdigest()
        limit = self.judge.max_document_tokens
        while True:
            ids = self.encoded(shown, limit, code[:12])
            if self.longest is None or len(ids) <= self.longest:
                return ids
            name = self.judge.pretrained.name
            tell(f"judge: {name} reads {self.longest:,} tokens: long documents are cut to fit")
            if limit <= SHORTEST:  # of texts whose tokens are many more than are counted
                raise UserError(
                    f"judge: {name}: it reads {self.longest} tokens, and those of query "
                    f"{q.query_id!r} are {len(ids)}; choose another model"
                )
            limit = max(limit * 3 // 4, SHORTEST)

    def encoded(self, q: Question, limit: int, code: str) -> list[int]:
        """Token ids of the prompt with `limit` tokens of each text."""
        messages = prompt.messages(q, limit, code, "choose")
        if self.tokenizer.chat_template:
            from jinja2 import TemplateError

            from zelo.models.causal import as_chat

            try:
                text = as_chat(self.tokenizer, messages)
            except TemplateError:  # of a template that knows no system role
                text = as_chat(self.tokenizer, prompt.as_user_message(messages))
            ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
            return ids
        text = "\n\n".join(message["content"] for message in messages) + "\nAnswer:"
        ids = self.tokenizer.encode(text)
        return ids

    def preference(self, prompts: Sequence[Sequence[int]]) -> list[float]:
        """P(A) of each prompt, among the two answers."""
        import torch

        from zelo.models.causal import logits_at_end, padded

        preference = [0.0] * len(prompts)
        for part in by_length([len(ids) for ids in prompts], self.judge.batch_size):
            ids, mask = padded([prompts[i] for i in part], self.tokenizer.pad_token_id or 0)
            logits = logits_at_end(self.model, ids, mask, last=1)[:, -1].float()
            a, b = (torch.logsumexp(logits[:, ids], 1) for ids in self.choices)
            for i, value in zip(part, torch.sigmoid(a - b).tolist(), strict=True):
                preference[i] = value
        return preference
