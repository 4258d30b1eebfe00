"""A reranker or an embedding model as a judge: the difference of its scores of two documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from zelo.config import option
from zelo.judging.estimate import LocalReading, TextLengths
from zelo.judging.scoring import ScoringJudge, ScoringSession, TextPair
from zelo.models.pretrained import PretrainedModel
from zelo.store import digest

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer


class Scorer(ScoringJudge):
    """Compares by the scores of a model."""

    compares_queries: ClassVar[bool] = True
    kind: str = option(
        help="cross_encoder: raw scores; bi_encoder: cosine of the embeddings",
        pattern="^(cross_encoder|bi_encoder)$",
    )
    pretrained: PretrainedModel = option(help="what sentence-transformers loads as such a model")
    max_length: int = option(512, "longer texts are cut", ge=8)
    batch_size: int = option(32, "texts read at once", ge=1, exclude=True)

    def session(self, data: Path) -> ScorerSession:
        """Load the model."""
        how = [self.kind, self.pretrained.fingerprint(), self.max_length]
        if self.kind == "cross_encoder":
            from zelo.models.answering import is_first_zerank

            if is_first_zerank(self.pretrained.locate()):
                how.append("Yes")  # how it is read lies in no file that is fingerprinted
        return ScorerSession(digest(["scorer", *how]), self, self.load())

    def local_reading(self, lengths: TextLengths) -> LocalReading:
        """A document with its query."""
        pair = lengths.query_tokens + lengths.truncated(self.max_length)
        return LocalReading(self.pretrained, pair, once=True)

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
class ScorerSession(ScoringSession):
    """The loaded model."""

    judge: Scorer
    model: Any

    def score(self, pairs: Sequence[TextPair]) -> list[float]:
        """Raw scores of a cross-encoder, cosines of an embedding model."""
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
