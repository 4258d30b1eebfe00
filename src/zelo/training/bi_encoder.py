"""The bi-encoder: an embedding model, what the stages do with one, and how it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zelo.config import option
from zelo.training.trainable import TrainableModel

if TYPE_CHECKING:
    from zelo.training.tokenized import BiEncoderInputs


class BiEncoder(TrainableModel):
    """`model=embedding`: query and document are embedded apart; the score is their cosine."""

    lightning_module: ClassVar[str] = "zelo.training.bi_encoder_module.BiEncoderModule"
    pooling: str | None = option(
        None,
        "of token embeddings; null: as the model says, else a decoder's last token, others' mean",
        pattern="^(mean|cls|lasttoken)$",
    )
    prompts: dict[str, str] | None = option(
        None, "put before texts: {query: ..., document: ...}; null: as the model says"
    )
    dimensions: list[int] = option(
        [], "lengths that embeddings are also trained to be cut to (Matryoshka)"
    )
    kind: str = option("embedding model", "what it is called in reports", exclude=True)

    def network(self) -> Any:
        """A `SentenceTransformer`, which cuts texts as in training."""
        from zelo.models.embedding import load_embedding_model

        model: Any = load_embedding_model(
            self.pretrained.locate(),
            self.training_length,
            self.pooling,
            self.attention,
        )
        if self.prompts is not None:
            model.prompts = {**model.prompts, **self.prompts}
        return self.told_how(model)

    def tokenized_inputs(self) -> type[BiEncoderInputs]:
        """How it reads queries and documents."""
        from zelo.training.tokenized import BiEncoderInputs

        return BiEncoderInputs

    def to_score(self, folder: Path | None) -> Any:
        """The embedding model in `folder`, or the starting one, with its prompts."""
        from zelo.models.embedding import load_embedding_model

        model: Any = load_embedding_model(
            folder or self.pretrained.locate(), self.max_length, None if folder else self.pooling
        )
        if folder is None and self.prompts is not None:
            model.prompts = {**model.prompts, **self.prompts}
        return self.told_how(model) if folder is None else model
