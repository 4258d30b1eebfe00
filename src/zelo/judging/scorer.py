"""A reranker or an embedding model as a judge: the difference of its scores of two documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from zelo.config import option
from zelo.judging.base import BaseJudge, LocalSession
from zelo.judging.estimate import LocalReading, TextLengths
from zelo.judging.question import Answer, Question
from zelo.models.pretrained import PretrainedModel
from zelo.store import digest

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer


class Scorer(BaseJudge):
    """`P(a ≻ b) = sigmoid(logit_scale · (s(q, a) − s(q, b)))` with the scores `s` of a model."""

    compares_queries: ClassVar[bool] = True
    usd_per_answer: ClassVar[float] = 0.0
    kind: str = option(
        help="cross_encoder: raw scores; bi_encoder: cosine of the embeddings",
        pattern="^(cross_encoder|bi_encoder)$",
    )
    pretrained: PretrainedModel = option(help="what sentence-transformers loads as such a model")
    max_length: int = option(512, "longer texts are cut", ge=8)
    logit_scale: float = option(
        1.0, "1 for a model whose score is a logit; about 20 for cosines of a bi-encoder", gt=0
    )
    batch_size: int = option(32, "texts read at once", ge=1, exclude=True)

    def prepare(self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int) -> ScorerSession:
        """Load the model."""
        how = [self.kind, self.pretrained.fingerprint(), self.max_length, self.logit_scale]
        if self.kind == "cross_encoder":
            from zelo.models.answering import is_first_zerank

            if is_first_zerank(self.pretrained.locate()):
                how.append("Yes")  # how it is read lies in no file that is fingerprinted
        return ScorerSession(digest(["scorer", *how]), self, self.load())

    def local_reading(self, lengths: TextLengths) -> LocalReading:
        """Each of the two documents is read with its query."""
        pair = lengths.query_tokens + lengths.truncated(self.max_length)
        return LocalReading(self.pretrained, 2 * pair)

    def load(self) -> CrossEncoder | SentenceTransformer:
        """The model."""
        folder = self.pretrained.locate()
        if self.kind == "bi_encoder":
            from zelo.models.embedding import load_embedding_model

            return load_embedding_model(folder, self.max_length)
        from zelo.models.cross_encoder import load_cross_encoder

        model: CrossEncoder = load_cross_encoder(folder, max_length=self.max_length)
        return model


@dataclass
class ScorerSession(LocalSession):
    """The loaded model."""

    fingerprint: str
    judge: Scorer
    model: Any

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Score each pair of query and document once, and compare."""
        from scipy.special import expit

        pairs = dict.fromkeys(pair for q in questions for pair in q.pairs)  # in order, each once
        score = dict(zip(pairs, self._scores(list(pairs)), strict=True))
        gaps = [score[a] - score[b] for a, b in (q.pairs for q in questions)]
        p = expit(self.judge.logit_scale * np.array(gaps, dtype=np.float64))
        return [Answer(1.0 - 2.0 * value) for value in p.tolist()]

    def _scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        import torch

        if self.judge.kind == "cross_encoder":
            scores = self.model.predict(
                pairs,
                batch_size=self.judge.batch_size,
                activation_fn=torch.nn.Identity(),
                show_progress_bar=False,
            )
            found: list[float] = np.asarray(scores, dtype=np.float64).tolist()
            return found
        from zelo.models.embedding import embed

        queries = list(dict.fromkeys(query for query, _ in pairs))
        texts = list(dict.fromkeys(text for _, text in pairs))
        size = self.judge.batch_size
        q = dict(zip(queries, embed(self.model, queries, size, "query", "queries"), strict=True))
        d = dict(zip(texts, embed(self.model, texts, size, "document", "documents"), strict=True))
        return [float(q[query] @ d[text]) for query, text in pairs]
