"""A causal language model as a judge by query likelihood: how probable the query is, given the
document.

It is for small models, which often guess when they are asked which of two documents is more
relevant: here they are asked nothing, and only read.
Source: Ponte and Croft, SIGIR 1998; of language models that read, Sachan et al., EMNLP 2022.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from zelo.config import option
from zelo.data.token_estimate import estimated_tokens
from zelo.errors import UserError
from zelo.judging.estimate import LocalReading, TextLengths
from zelo.judging.prompt import broken, clean
from zelo.judging.scoring import ScoringJudge, ScoringSession, TextPair
from zelo.models.batching import by_length
from zelo.models.pretrained import PretrainedModel
from zelo.progress import track
from zelo.store import digest

BEFORE, BETWEEN = "Document:", "\n\nSearch query that this document answers:"
QUERY_TOKENS = 128  # of a query at most so many are read: their logits take memory
FEWEST = 16  # tokens of a document that there must be room for


class QueryLikelihood(ScoringJudge):
    """Compares by the mean log-probability of the query's tokens after each document.

    How probable a query is at all differs from query to query, so that scores have no common level.
    """

    pretrained: PretrainedModel = option(help="a causal language model")
    max_document_tokens: int = option(512, "of a document at most so many tokens are read", ge=16)
    per_token: bool = option(
        True, "mean over the query's tokens; false: their sum, by which long queries count more"
    )
    precision: str = option("auto", "auto: as saved", pattern="^(auto|float32|bfloat16|float16)$")
    batch_size: int = option(8, "documents read at once", ge=1, exclude=True)

    def session(self, data: Path) -> LikelihoodSession:
        """Load model and tokenizer, on the GPU where there is one."""
        from zelo.models.causal import load_causal_model

        model, tokenizer = load_causal_model(self.pretrained.locate(), self.precision)
        known_by = [
            self.pretrained.fingerprint(),
            [BEFORE, BETWEEN, QUERY_TOKENS],
            self.max_document_tokens,
            self.per_token,
            self.precision,
        ]
        return LikelihoodSession(digest(["query_likelihood", *known_by]), self, model, tokenizer)

    def local_reading(self, lengths: TextLengths) -> LocalReading:
        """A document, and the query after it."""
        frame = estimated_tokens(BEFORE + BETWEEN)
        tokens = frame + lengths.truncated(self.max_document_tokens) + lengths.query_tokens
        return LocalReading(self.pretrained, tokens, once=True)


@dataclass
class LikelihoodSession(ScoringSession):
    """The loaded model."""

    questions_per_batch: ClassVar[int] = 64
    measured_by: ClassVar[int] = 200  # read again whenever it is prepared
    judge: QueryLikelihood
    model: Any
    tokenizer: Any
    special: re.Pattern[str] = field(init=False)  # what its tokenizer takes for a control token
    longest: int | None = field(init=False)  # tokens that the model can read
    before: list[int] = field(init=False)  # token ids, with what its texts begin with
    between: list[int] = field(init=False)

    def __post_init__(self) -> None:
        from zelo.models.causal import control_tokens
        from zelo.models.loading import usable_length

        self.tokenizer.truncation_side = "right"
        self.special = control_tokens(self.tokenizer)
        self.longest = usable_length(self.model)
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        self.before = self.tokenizer.encode(BEFORE)
        if len(self.before) > 1 and self.before[-1] == end and end != begin:
            self.before.pop()  # of a tokenizer that closes texts: this one goes on
        self.between = self.tokenizer.encode(BETWEEN, add_special_tokens=False)
        needed = len(self.before) + len(self.between) + QUERY_TOKENS + FEWEST
        if self.longest is not None and needed > self.longest:
            raise UserError(
                f"judge: {self.judge.pretrained.name}: it reads {self.longest} tokens, and prompt, "
                f"query and the beginning of a document may be {needed}; choose another model"
            )

    def text_ids(self, text: str, most: int) -> list[int]:
        """Token ids of a text, without control tokens, cut."""
        ids: list[int] = self.tokenizer.encode(
            " " + self.special.sub(broken, clean(text)),
            add_special_tokens=False,
            truncation=True,
            max_length=most,
        )
        return ids

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many of `texts` are longer than what is read of a document."""
        most = self.judge.max_document_tokens
        return sum(len(self.text_ids(text, most + 1)) > most for text in texts)

    def score(self, pairs: Sequence[TextPair]) -> list[float]:
        """Log-probability of each query after its document."""
        queries = {q: self.text_ids(q, QUERY_TOKENS) for q in dict.fromkeys(q for q, _ in pairs)}
        most = self.judge.max_document_tokens
        documents = {d: self.text_ids(d, most) for d in dict.fromkeys(d for _, d in pairs)}
        prompts = [self.prompt(documents[d], queries[q]) for q, d in pairs]
        found = [0.0] * len(pairs)
        batches = by_length([-len(ids) for ids in prompts], self.judge.batch_size)
        for part in track(batches, "reading queries after documents"):
            asked = [len(queries[pairs[i][0]]) for i in part]
            for i, value in zip(part, self.read([prompts[i] for i in part], asked), strict=True):
                found[i] = value
        return found

    def prompt(self, document: list[int], query: list[int]) -> list[int]:
        """Token ids of the document and the query after it; the document is cut until they fit."""
        frame = len(self.before) + len(self.between) + len(query)
        room = len(document) if self.longest is None else self.longest - frame
        return [*self.before, *document[:room], *self.between, *query]

    def read(self, prompts: Sequence[list[int]], query_tokens: Sequence[int]) -> list[float]:
        """Sum or mean of the log-probabilities of the last `query_tokens` tokens of each prompt; 0
        of none."""
        from zelo.models.causal import logits_at_end, padded

        # Padding stands at the beginning, so that all queries end at the same place.
        ids, mask = padded(prompts, self.tokenizer.pad_token_id or 0)
        length, most = ids.shape[1], max(query_tokens)
        # Those of a place are of the token after it.
        logits = logits_at_end(self.model, ids, mask, last=most + 1)[:, :-1]
        found = []
        for row, n in enumerate(query_tokens):
            logp = logits[row, most - n :].float().log_softmax(-1).cpu()
            total = float(logp.gather(1, ids[row, length - n :, None]).sum())
            found.append(total / n if self.judge.per_token and n else total)
        return found
