"""The bi-encoder: an embedding model, and what the stages do with one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zelo.config import Component, option
from zelo.models.lora import Lora, merge, prepare
from zelo.models.pretrained import PretrainedModel

if TYPE_CHECKING:
    from zelo.distributed.trainer import LightningTrainer
    from zelo.training.modules import BiEncoderModule
    from zelo.training.objectives import Objective
    from zelo.training.options import TrainingOptions

DEFAULT_SCALE = 6.0


class BiEncoder(Component):
    """`model=embedding`: query and document are embedded apart; the score is their cosine."""

    pretrained: PretrainedModel = option(
        help="embedding model, or a bare encoder or decoder, to start from"
    )
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
    max_length: int = option(256, "longer texts are cut here, in training and after", ge=8)
    train_max_length: int | None = option(
        None, "cut shorter than that in training, for speed", ge=8
    )
    logit_scale: float | None = option(
        None,
        "training compares `scale · cosine` with targets; null: so that the starting model's "
        "predictions spread as the targets do (6 where the objective fixes their level)",
        gt=0,
    )
    lora: Lora | None = option(None, "adapters in place of full fine-tuning")
    gradient_checkpointing: bool = option(
        False, "make activations anew in the backward pass: less memory, slower", exclude=True
    )
    attention: str | None = option(
        None, "transformers' attn_implementation; null: its choice", exclude=True
    )
    batch_size: int = option(64, "texts embedded at once", ge=1, exclude=True)

    kind: str = option("embedding model", "what it is called in reports", exclude=True)

    def module(
        self, objective: Objective, training: TrainingOptions, steps: int
    ) -> BiEncoderModule:
        """Return the LightningModule that trains it for `steps` steps."""
        from zelo.models.embedding import load_embedding_model
        from zelo.training.modules import BiEncoderModule

        model: Any = load_embedding_model(
            self.pretrained.locate(),
            self.train_max_length or self.max_length,
            self.pooling,
            self.attention,
        )
        if self.prompts is not None:
            model.prompts = {**model.prompts, **self.prompts}
        adapted = prepare(model[0].model, self.lora, self.gradient_checkpointing)
        module = BiEncoderModule(
            model, self.logit_scale or DEFAULT_SCALE, objective, training, steps, self.dimensions
        )
        module.remember(adapted)
        return module

    def export(self, module: BiEncoderModule, folder: Path) -> None:
        """Write a folder that `sentence_transformers.SentenceTransformer(folder)` loads."""
        from zelo.models.loading import limit

        model = module.model
        limit(model, self.pretrained.locate(), self.max_length)
        if module.adapted is not None:
            merge(module.adapted, folder / "adapter", self.pretrained.name)
        model.save_pretrained(str(folder), create_model_card=False)

    def score(
        self,
        folder: Path | None,
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        candidates: Mapping[str, Sequence[str]],
        out: Path,
        trainer: LightningTrainer,
        tokens: int | None = None,
    ) -> dict[str, list[float]]:
        """Scores of each query's candidates by the model in `folder`, None: the starting model."""
        from zelo.models.embedding import load_embedding_model, rerank_by_cosine

        model: Any = load_embedding_model(
            folder or self.pretrained.locate(), self.max_length, None if folder else self.pooling
        )
        if folder is None and self.prompts is not None:
            model.prompts = {**model.prompts, **self.prompts}
        return rerank_by_cosine(model, queries, documents, candidates, self.batch_size, tokens)
