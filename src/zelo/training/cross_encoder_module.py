"""The LightningModule that trains a cross-encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zelo.models.cross_encoder import save_cross_encoder, unpadded
from zelo.models.loading import limit
from zelo.models.lora import merge
from zelo.models.segments import SegmentHead
from zelo.models.tokens import Features
from zelo.training.batches import ScoredBatch
from zelo.training.cross_encoder import CrossEncoder
from zelo.training.objectives import BaseObjective
from zelo.training.options import TrainingOptions
from zelo.training.pointwise import PointwiseModule


class CrossEncoderModule(PointwiseModule):
    """Trains a cross-encoder so that its scores meet the targets.

    `model` is a hub name, a folder or a `CrossEncoder` with its options; see `PointwiseModule` for
    the rest.
    """

    component: CrossEncoder

    def __init__(
        self,
        model: str | Path | CrossEncoder | Mapping[str, Any],
        *,
        head: str | None = None,
        max_length: int | None = None,
        loss: str | BaseObjective | dict[str, Any] = "mse",
        learning_rate: float | None = None,
        training: TrainingOptions | dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        component = CrossEncoder.of(model, head=head, max_length=max_length)
        super().__init__(component, loss, learning_rate, training, seed)

    @property
    def logit_scale(self) -> float | None:
        """Factor of the cosine in a `segments` head; other heads have none."""
        head = self.model[-1]
        return head.scale if isinstance(head, SegmentHead) else None

    @logit_scale.setter
    def logit_scale(self, scale: float | None) -> None:
        self.model[-1].scale = scale

    def predict(self, batch: ScoredBatch) -> list[tuple[Tensor, Tensor | None]]:
        """One score per query and document; where there is none, it is the first pair's."""
        return [(self.apply_to(batch.inputs["pairs"], self.score)[batch.document_index], None)]

    def score(self, features: Features) -> Tensor:
        """Raw scores (pairs,), float32."""
        scores: Tensor = self.model(dict(features))["scores"]
        return scores.squeeze(-1).float()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `sentence_transformers.CrossEncoder(folder)` loads; adapters are
        merged, here too.

        Of a sequence classifier the same scores lie in `unpadded/` as separate modules, the shape
        that reads without padding under flash attention.
        """
        folder, model, component = Path(folder), self.model.eval(), self.component
        self.widen()
        if self.peft_model is not None:
            merge(self.peft_model, folder / "adapter", component.pretrained.name)
        limit(model, component.pretrained.locate(), component.max_length)
        # Scores leave the shipped model as the objective compared them with targets.
        model.activation_fn = self.objective.activation()
        save_cross_encoder(model, folder)
        apart = unpadded(model, folder)
        if apart is not None:
            apart.activation_fn = model.activation_fn
            save_cross_encoder(apart, folder / "unpadded")
