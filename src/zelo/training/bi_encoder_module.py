"""The LightningModule that trains a bi-encoder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from zelo.models.cross_encoder import DEFAULT_SCALE
from zelo.models.loading import limit
from zelo.models.lora import merge
from zelo.models.tokens import Features
from zelo.training.batches import ScoredBatch
from zelo.training.bi_encoder import BiEncoder
from zelo.training.objectives import BaseObjective
from zelo.training.options import TrainingOptions
from zelo.training.pointwise import LogitBias, PointwiseModule


class BiEncoderModule(PointwiseModule):
    """Trains an embedding model so that `logit_scale · cos(q, d)` meets the targets.

    `model` is a hub name, a folder or a `BiEncoder` with its options; see `PointwiseModule` for the
    rest. Where targets fix a level, one number is learned that is added to all predictions; it does
    not ship, as it changes no order. With `dimensions` (Matryoshka, arXiv 2205.13147) the objective
    is averaged over embeddings cut to each of them as well.
    """

    component: BiEncoder

    def __init__(
        self,
        model: str | Path | BiEncoder | Mapping[str, Any],
        *,
        pooling: str | None = None,
        max_length: int | None = None,
        loss: str | BaseObjective | dict[str, Any] = "mse",
        learning_rate: float | None = None,
        training: TrainingOptions | dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        component = BiEncoder.of(model, pooling=pooling, max_length=max_length)
        super().__init__(component, loss, learning_rate, training, seed)
        self.logit_scale: float = component.logit_scale or DEFAULT_SCALE
        if not self.objective.shift_invariant:
            self.logit_bias = LogitBias()
        self.dimensions = [None, *component.dimensions]

    def predict(self, batch: ScoredBatch) -> list[tuple[Tensor, Tensor | None]]:
        """Each distinct text of the batch is embedded once."""
        q = self.apply_to(batch.inputs["queries"], self.embed)
        d = self.apply_to(batch.inputs["documents"], self.embed)
        # A query's own candidates are no strangers to it; where there is none, the index is 0.
        index = batch.document_index
        own = torch.zeros(len(q), len(d), device=q.device).scatter_add(1, index, batch.weight)
        found: list[tuple[Tensor, Tensor | None]] = []
        for n in self.dimensions if torch.is_grad_enabled() else self.dimensions[:1]:
            with torch.autocast(q.device.type, enabled=False):  # cosines lie close together
                unit = [F.normalize(side[:, :n].float(), dim=1) for side in (q, d)]
                scores = self.logit_scale * (unit[0] @ unit[1].T)
                if self.logit_bias is not None:
                    scores = self.logit_bias(scores)
            found.append((scores.gather(1, index), scores.masked_fill(own > 0, -math.inf)))
        return found

    def embed(self, features: Features) -> Tensor:
        """Embeddings (texts, dimensions)."""
        embeddings: Tensor = self.model(dict(features))["sentence_embedding"]
        return embeddings

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `sentence_transformers.SentenceTransformer(folder)` loads; adapters
        are merged, here too."""
        folder, model, component = Path(folder), self.model.eval(), self.component
        self.widen()
        limit(model, component.pretrained.locate(), component.max_length)
        if self.peft_model is not None:
            merge(self.peft_model, folder / "adapter", component.pretrained.name)
        model.save_pretrained(str(folder), create_model_card=False)
