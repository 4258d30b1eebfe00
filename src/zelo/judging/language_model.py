"""A causal language model on this machine, as a judge: the logits of its possible answers.

Of two documents the answers are A and B, of a block one letter per document: the whole order is
read off the first token that it would write, as Gangi Reddy et al. do (FIRST, EMNLP 2024).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from zelo.config import option
from zelo.data.token_estimate import estimated_tokens
from zelo.errors import UserError
from zelo.judging import prompt
from zelo.judging.base import BaseJudge, LocalSession
from zelo.judging.estimate import LocalReading, TextLengths
from zelo.judging.list_reply import ListReply
from zelo.judging.lists import list_answer, shown_texts
from zelo.judging.question import Answer, Question
from zelo.models.batching import by_length
from zelo.models.pretrained import PretrainedModel
from zelo.progress import tell
from zelo.store import digest

SHORTEST = 16  # tokens of each text that a prompt has room for
OF_TWO, OF_BLOCK = "choose", "best_letter"  # prompts
# Of the documents of a block, in the order shown. "I" is a word that answers begin with.
LETTERS = "ABCDEFGHJKLMNOPQRSTUVWXYZ"

S = TypeVar("S", bound="LanguageModelSession")


class LanguageModel(BaseJudge):
    """Compares by `P(A) / (P(A) + P(B))`, A and B being the next token of `prompts/choose.md`.

    Documents of a block are ordered by the logits of their letters as the next token of
    `prompts/best_letter.md`.
    """

    orders_lists: ClassVar[bool] = True
    most_in_block: ClassVar[int | None] = len(LETTERS)
    usd_per_answer: ClassVar[float] = 0.0
    pretrained: PretrainedModel = option(help="a causal language model")
    max_document_tokens: int = option(
        512, "of each document at most about so many tokens are shown", ge=16
    )
    both_orders: bool = option(True, "average over both orders, which takes out position bias")
    precision: str = option("auto", "auto: as saved", pattern="^(auto|float32|bfloat16|float16)$")
    batch_size: int = option(8, "prompts read at once", ge=1, exclude=True)

    def fingerprint(self) -> str:
        """Digest of the prompts."""
        return digest([prompt.prompt_hash(name) for name in (OF_TWO, OF_BLOCK)])

    def prepare(
        self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int
    ) -> LanguageModelSession:
        """Load model and tokenizer, on the GPU where there is one."""
        return self._session(LanguageModelSession, OF_TWO)

    def prepare_lists(
        self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int
    ) -> LanguageModelOrderSession:
        """The same, to order blocks."""
        return self._session(LanguageModelOrderSession, OF_BLOCK)

    def _session(self, kind: type[S], asked_by: str) -> S:
        from zelo.models.causal import load_causal_model

        model, tokenizer = load_causal_model(self.pretrained.locate(), self.precision)
        tokenizer.padding_side = "left"
        how = [
            prompt.prompt_hash(asked_by),
            self.max_document_tokens,
            self.both_orders,
            self.precision,
        ]
        known_by = digest(["language_model", self.pretrained.fingerprint(), *how])
        return kind(known_by, self, model, tokenizer)

    def local_reading(self, lengths: TextLengths) -> LocalReading:
        """A prompt with both documents, in one order or in two."""
        frame = estimated_tokens(" ".join(prompt.sections(OF_TWO).values()))
        asked = lengths.query_tokens + lengths.instruction_tokens
        document = lengths.truncated(self.max_document_tokens)
        times = 2 if self.both_orders else 1
        marker = estimated_tokens(prompt.sections(OF_BLOCK)["document"])
        return LocalReading(
            self.pretrained,
            times * (asked + frame + 2 * document),
            tokens_of_another=times * (document + marker),
        )


@dataclass
class LanguageModelSession(LocalSession):
    """The loaded model."""

    questions_per_batch: ClassVar[int] = 32
    may_guess: ClassVar[bool] = True
    letters: ClassVar[str] = LETTERS[:2]
    or_else: ClassVar[str] = ""
    fingerprint: str
    judge: LanguageModel
    model: Any
    tokenizer: Any
    choices: list[list[int]] = field(init=False)  # ids of the tokens that mean A, and B, and so on
    special: re.Pattern[str] = field(init=False)  # what its tokenizer takes for a control token
    longest: int | None = field(init=False)  # tokens of a prompt that the model can read

    def __post_init__(self) -> None:
        from zelo.models.causal import control_tokens
        from zelo.models.loading import usable_length

        self.choices = [self._ids(letter) for letter in self.letters]
        self.special = control_tokens(self.tokenizer)
        self.longest = usable_length(self.model)
        nothing = prompt.messages(Question("", "", "", 0, "", "", ""), SHORTEST, "0" * 12, OF_TWO)
        frame = len(self.encoded(nothing))
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
        told, query, a, b = map(self.harmless, (q.instruction, *texts))
        shown = Question(q.query_id, q.doc_a, q.doc_b, q.repeat, query, a, b, instruction=told)
        code = code_of(told, query, a, b)
        return self.fitted(lambda limit: prompt.messages(shown, limit, code, OF_TWO), q.query_id)

    def harmless(self, text: str) -> str:
        """A text without what the tokenizer takes for control tokens."""
        return self.special.sub(prompt.broken, text)

    def fitted(self, written: Callable[[int], prompt.Messages], query_id: str) -> list[int]:
        """Token ids of what is `written` with so many tokens of each text; fewer until it fits."""
        limit = self.judge.max_document_tokens
        while True:
            ids = self.encoded(written(limit))
            if self.longest is None or len(ids) <= self.longest:
                return ids
            name = self.judge.pretrained.name
            tell(f"judge: {name} reads {self.longest:,} tokens: long documents are cut to fit")
            if limit <= SHORTEST:  # of texts whose tokens are many more than are counted
                raise UserError(
                    f"judge: {name}: it reads {self.longest} tokens, and those of query "
                    f"{query_id!r} are {len(ids)}; choose another model{self.or_else}"
                )
            limit = max(limit * 3 // 4, SHORTEST)

    def encoded(self, messages: prompt.Messages) -> list[int]:
        """Token ids of a prompt, up to where the answer stands."""
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
        log_p = self.log_probabilities(prompts)
        return [float(1 / (1 + np.exp(b - a))) for a, b in log_p]

    def log_probabilities(self, prompts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Log-probability (N, answers) of each answer to each prompt, among all tokens."""
        import torch

        from zelo.models.causal import logits_at_end, padded

        found = np.zeros((len(prompts), len(self.choices)))
        for part in by_length([len(ids) for ids in prompts], self.judge.batch_size):
            ids, mask = padded([prompts[i] for i in part], self.tokenizer.pad_token_id or 0)
            logits = logits_at_end(self.model, ids, mask, last=1)[:, -1].float().log_softmax(-1)
            answers = [torch.logsumexp(logits[:, ids], 1) for ids in self.choices]
            found[part] = torch.stack(answers, 1).cpu()
        return found


@dataclass
class LanguageModelOrderSession(LanguageModelSession):
    """One that orders blocks."""

    questions_per_batch: ClassVar[int] = 16
    letters: ClassVar[str] = LETTERS
    or_else: ClassVar[str] = ", or smaller blocks (sampler.size)"

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """An order of each block; similar lengths are read together."""
        turns = (False, True) if self.judge.both_orders else (False,)
        prompts = [self.prompt_of(q, turned) for q in questions for turned in turns]
        found = self.log_probabilities(prompts).reshape(len(questions), len(turns), -1)
        answers = []
        for q, log_p in zip(questions, found, strict=True):
            there = log_p[:, : len(shown_texts(q))]
            # Among the letters that are there: each turn counts the same.
            share = there - np.logaddexp.reduce(there, 1, keepdims=True)
            each = [row[::-1] if turned else row for row, turned in zip(share, turns, strict=True)]
            score = np.mean(each, 0)
            answers.append(list_answer(ListReply([int((score > one).sum()) for one in score])))
        return answers

    def prompt_of(self, q: Question, swapped: bool = False) -> list[int]:
        """Token ids of the question about a block, in the order shown or from its end."""
        texts = [*map(self.harmless, shown_texts(q)[:: -1 if swapped else 1])]
        if len(texts) > len(LETTERS):
            raise UserError(
                f"judge: {self.judge.pretrained.name}: a block has {len(texts)} documents, and "
                f"there are {len(LETTERS)} letters; set sampler.size={len(LETTERS)} or less"
            )
        told, query = map(self.harmless, (q.instruction, q.query))
        code = code_of(told, query, *texts)
        return self.fitted(
            lambda limit: prompt.list_messages(
                query, texts, LETTERS[: len(texts)], told, limit, OF_BLOCK, code
            ),
            q.query_id,
        )


def code_of(told: str, *asked: str) -> str:
    """The marker code: the same whenever the same is asked, so that the answer is the same too."""
    whole = "\x1f".join([*([told] if told else []), *asked])
    return hashlib.sha256(whole.encode("utf-8", "replace")).hexdigest()[:12]
