"""The LightningModule that trains a pairwise model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zelo.config import dump
from zelo.models.lora import merge, prepare
from zelo.models.pairwise_model import BasePairwiseModel, PairwiseModel
from zelo.training.base_module import ZeloModule, freeze_pooler, new_parameters, training_of
from zelo.training.batches import PairwiseBatch
from zelo.training.options import TrainingOptions


class PairwiseModule(ZeloModule):
    """Distils an ensemble: binary cross-entropy on soft preferences (METHOD, stage 3).

    `model` is a hub name, a folder or a pairwise model with its options; `learning_rate` is that of
    `training`. Batches are those of `PairwiseDataModule`.
    """

    def __init__(
        self,
        model: str | Path | BasePairwiseModel | Mapping[str, Any],
        *,
        max_length: int | None = None,
        learning_rate: float | None = None,
        training: TrainingOptions | dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        kind = PairwiseModel if isinstance(model, str | Path) else BasePairwiseModel
        component = kind.of(model, max_length=max_length)
        options = training_of(training, learning_rate)
        with new_parameters(seed):
            network = component.network()
            peft_model = prepare(network.encoder, component.lora, component.gradient_checkpointing)
        super().__init__(network, peft_model, options)
        self.save_hyperparameters(
            {"model": dump(component), "training": dump(options), "seed": seed}, logger=False
        )
        self.component = component
        freeze_pooler(self.backbone)

    @property
    def backbone(self) -> nn.Module:
        """The transformer."""
        found: nn.Module = self.model.encoder
        return found

    def fresh_backbone(self) -> nn.Module:
        """The transformer as training began."""
        found: nn.Module = self.component.network().encoder
        return found

    def forward(self, batch: PairwiseBatch) -> Tensor:
        """Logits (triples,) of P(a ≻ b)."""
        return self.apply_to(batch.triples, self.model)

    def training_step(self, batch: PairwiseBatch, batch_idx: int) -> Tensor:
        """Cross-entropy between the ensemble's preferences and the model's."""
        logits = self(batch).float()
        with torch.autocast(self.device.type, enabled=False):
            loss = F.binary_cross_entropy_with_logits(logits, batch.preference, reduction="sum")
        return self.logged(batch.loss_scale * loss, batch.query_ids)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a folder that `component.load` and `judge=distilled` read; adapters are merged,
        here too."""
        folder = Path(folder)
        self.widen()
        if self.peft_model is not None:
            merge(self.peft_model, folder / "adapter", self.component.pretrained.name)
        self.model.eval().save(folder)
