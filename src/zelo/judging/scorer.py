"""A reranker or an embedding model as a judge: the difference of its scores of two documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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

    from zelo.models.instructions import Told


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
    precision: str = option(
        "float32",
        "bfloat16: products of matrices have 16 bits, as quick again where the processor has them",
        pattern="^(float32|bfloat16)$",
        added=True,
    )

    def session(self, data: Path) -> ScorerSession:
        """Load the model."""
        how = [self.kind, self.pretrained.fingerprint(), self.max_length]
        if self.kind == "cross_encoder":
            from zelo.models.answering import is_first_zerank

            if is_first_zerank(self.pretrained.locate()):
                how.append("Yes")  # how it is read lies in no file that is fingerprinted
        if self.precision != "float32":
            how.append(self.precision)
        return ScorerSession(digest(["scorer", *how]), self, self.load())

    def local_reading(self, lengths: TextLengths) -> LocalReading:
        """A document with its query, or by itself."""
        if self.kind == "bi_encoder":
            document = lengths.truncated(self.max_length)
            return LocalReading(self.pretrained, document, once=True, embeds=True)
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
    template: str | None = field(init=False)  # how it is told an instruction; None: not at all

    def __post_init__(self) -> None:
        from zelo.models.instructions import template_of

        self.template = template_of(self.model)

    @property
    def reads_instructions(self) -> bool:
        """Where its prompt has a place for them."""
        return self.template is not None

    def as_read(self, query: str, instruction: str) -> Told:
        """The query, and what is read before it."""
        from zelo.models.instructions import told

        return told(self.model, query, instruction, self.template)

    def score(self, pairs: Sequence[TextPair]) -> list[float]:
        """Raw scores of a cross-encoder, cosines of an embedding model."""
        import torch

        half = self.judge.precision == "bfloat16"
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=half):
            return self._score(pairs)

    def _score(self, pairs: Sequence[TextPair]) -> list[float]:
        if self.judge.kind == "cross_encoder":
            scores = np.empty(len(pairs))
            for prompt in dict.fromkeys(query.prompt for query, _ in pairs):
                rows = [i for i, (query, _) in enumerate(pairs) if query.prompt == prompt]
                scores[rows] = self._predict([pairs[i] for i in rows], prompt)
            found: list[float] = scores.tolist()
            return found
        from zelo.models.embedding import embed, embed_told

        queries = list(dict.fromkeys(query for query, _ in pairs))
        texts = list(dict.fromkeys(text for _, text in pairs))
        size = self.judge.batch_size
        q = dict(zip(queries, embed_told(self.model, queries, size), strict=True))
        d = dict(zip(texts, embed(self.model, texts, size, "document", "documents"), strict=True))
        return [float(q[query] @ d[text]) for query, text in pairs]

    def _predict(self, pairs: Sequence[TextPair], prompt: str | None) -> Any:
        """Scores of pairs whose queries have the same prompt."""
        import torch

        return self.model.predict(
            [(query.text, text) for query, text in pairs],
            prompt=prompt,
            batch_size=self.judge.batch_size,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
        )
