"""What the LightningModules of bi-encoders and cross-encoders have in common.

They take token ids in chunks of similar length, so that little of the work is padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from zelo.config import dump
from zelo.errors import UserError
from zelo.models.heads import heads_in_32_bits
from zelo.models.lora import prepare
from zelo.models.packing import lets_packing_through
from zelo.progress import tell
from zelo.training.base_module import ZeloModule, freeze_pooler, new_parameters, training_of
from zelo.training.batches import ScoredBatch, scored_batch
from zelo.training.losses import centre, ndcg
from zelo.training.objectives import BaseObjective, objective_of
from zelo.training.options import TrainingOptions
from zelo.training.rated_queries import RatedQuery
from zelo.training.trainable import TrainableModel

SCALES = 0.5, 100.0  # a starting model whose scores hardly part, or part much, has no better one
COLUMNS = ("query", "document", "target")  # of rows that are no `ScoredBatch`


class PointwiseModule(ZeloModule):
    """A sentence-transformers model that learns targets: its predictions under an objective.

    `loss` is a name of `conf/objective/` or an objective. `learning_rate` is that of `training`,
    which holds what else can be set of optimisation. New parameters are drawn by `seed`. Batches
    are those of `ThurstoneDataModule`, or columns of queries, documents and targets: a mapping that
    has them by these names, or a sequence of the three.
    """

    def __init__(
        self,
        component: TrainableModel,
        loss: str | BaseObjective | dict[str, Any],
        learning_rate: float | None = None,
        training: TrainingOptions | dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        objective, options = objective_of(loss), training_of(training, learning_rate)
        with new_parameters(seed):
            model = component.network()
            peft_model = prepare(model[0].model, component.lora, component.gradient_checkpointing)
        heads_in_32_bits(model)
        lets_packing_through(model[0])
        super().__init__(model, peft_model, options)
        self.save_hyperparameters(
            {
                "model": dump(component),
                "loss": dump(objective),
                "training": dump(options),
                "seed": seed,
            },
            logger=False,
        )
        self.component, self.objective = component, objective
        self.ndcg, self.val_loss = WeightedMean(), WeightedMean()
        self.validated: list[tuple[Sequence[str], Tensor, Tensor]] = []  # in this validation
        self.query_ndcg: dict[str, float] = {}  # of this rank's queries, in the last one
        self.logit_bias: LogitBias | None = None  # of a cosine that has to meet targets in [0, 1]
        self.calibrated = False  # scale or bias of a cosine, by batches of the starting model
        if model[0].transformer_task == "feature-extraction":
            freeze_pooler(self.backbone)
        if objective.shift_invariant:
            for parameter in self.model.parameters():
                if parameter.shape == (1,):  # the last bias: all that would move it is rounding
                    parameter.requires_grad_(False)

    @property
    def backbone(self) -> nn.Module:
        """The transformer."""
        found: nn.Module = self.model[0].model
        return found

    def fresh_backbone(self) -> nn.Module:
        """The transformer as training began."""
        found: nn.Module = self.component.network()[0].model
        return found

    def predict(self, batch: ScoredBatch) -> list[tuple[Tensor, Tensor | None]]:
        """Predictions (Q, K), and scores (Q, D) of other queries' documents where they cost
        nothing; more than one where the objective is to hold of several."""
        raise NotImplementedError

    def forward(self, batch: ScoredBatch) -> Tensor:
        """Predictions (queries, candidates) of the whole model."""
        return self.predict(batch)[0][0]

    def from_rows(self, rows: Any) -> ScoredBatch:
        """Columns of queries, documents and targets as a batch on the module's device; rows of one
        query go together."""
        try:
            columns = [rows[c] for c in COLUMNS] if isinstance(rows, Mapping) else list(rows)
            queries, documents, targets = columns
        except (KeyError, TypeError, ValueError):
            raise UserError(
                f"training: a batch is {type(rows).__name__}; expected a ScoredBatch, or columns "
                f"{', '.join(COLUMNS)}"
            ) from None
        inputs, index = self.component.tokenized_inputs().of_rows(self.model, queries, documents)
        rows_of: dict[str, list[int]] = {}
        for row, text in enumerate(queries):
            rows_of.setdefault(text, []).append(row)
        drawn = [
            (
                RatedQuery(text, [documents[i] for i in own], [float(targets[i]) for i in own]),
                range(len(own)),
            )
            for text, own in rows_of.items()
        ]
        indices = [[index[i] for i in own] for own in rows_of.values()]
        batch = scored_batch(drawn, inputs, indices)
        return replace(batch.to(self.device), step=batch)  # what is counted stays on the host

    def on_fit_start(self) -> None:
        """Calibrate a cosine, on the device that trains, by batches that the data module has."""
        batches = getattr(self.trainer.datamodule, "calibration_batches", None)
        goes_on = self.trainer.ckpt_path is not None  # with what the checkpoint holds
        if self.calibrated or goes_on or batches is None or self.logit_scale is None:
            return
        calibrate = None
        if not self.objective.shift_invariant:
            calibrate = self.calibrate_bias if self.logit_bias is not None else None
        elif self.component.logit_scale is None:
            calibrate = self.calibrate_scale
        if calibrate is not None:
            moved = [self.trainer.strategy.batch_to_device(batch) for batch in batches()]
            with self.trainer.precision_plugin.forward_context():
                calibrate(moved)
        self.calibrated = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the scale: training that goes on does so with the same."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["logit_scale"] = self.logit_scale

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the scale that training began with."""
        if checkpoint["logit_scale"] is not None:
            self.logit_scale = checkpoint["logit_scale"]
        self.calibrated = True

    def calibrate_scale(self, batches: Sequence[ScoredBatch]) -> None:
        """Give the cosine the factor at which predictions spread, within queries, as targets do.

        With another one the first thing a model learns is to press cosines together or apart,
        which no ranking needs.
        """
        predictions = [
            centre(predicted, batch.weight)[batch.mask]
            for batch, predicted in zip(batches, self.predicted(batches), strict=True)
        ]
        targets = [centre(batch.target, batch.weight)[batch.mask] for batch in batches]
        spread = torch.cat(predictions).std()
        wanted = torch.cat(targets).std()
        if spread > 0 and wanted > 0:
            matched = (self.logit_scale or 1.0) * float(wanted / spread)
            self.logit_scale = min(max(matched, SCALES[0]), SCALES[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """This micro-batch's part of the mean loss of the step."""
        batch = batch if isinstance(batch, ScoredBatch) else self.from_rows(batch)
        if batch_idx == 0:
            self.warn_of_targets(batch)
        predictions = self.predict(batch)
        with torch.autocast(self.device.type, enabled=False):  # losses are of 32 bits
            totals = [self.objective.total(p, batch, others).sum() for p, others in predictions]
            loss = batch.loss_scale(self.objective.size) * torch.stack(totals).mean()
        return self.logged(loss, batch.query_ids)

    def warn_of_targets(self, batch: ScoredBatch) -> None:
        """Say where targets are not those that the objective learns."""
        target = (batch.step or batch).target
        low, high = float(target.min()), float(target.max())
        if self.objective.target != "centred" and (low < 0 or high > 1):
            tell(
                f"training: targets from {low:.2f} to {high:.2f}, and the objective "
                f"{type(self.objective).__name__} learns targets in [0, 1]: rate with "
                f"rating.target={self.objective.target}, or choose another loss"
            )

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Loss and NDCG@10 on held-out queries, with exp(Elo) as the gain: no label is needed.

        The gains are those of `evaluation.elo_truth`, whatever targets the objective learns: with
        targets in [0, 1] the best would have at most 2.7 times the gain of the worst.
        It reads in training's precision, with scores of 32 bits; each query is on one rank alone.
        """
        batch = batch if isinstance(batch, ScoredBatch) else self.from_rows(batch)
        prediction, others = self.predict(batch)[0]
        size = self.objective.size(batch).sum()
        total = self.objective.total(prediction, batch, others).sum()
        self.val_loss.update(total / size.clamp_min(1e-12), size)
        values = ndcg(prediction.float(), batch.elo, batch.weight, k=10)
        counted = batch.mask.any(1)
        self.ndcg.update(values, counted)
        self.validated.append((batch.query_ids, values, counted))

    def on_validation_epoch_end(self) -> None:
        """Log what all ranks saw."""
        self.log("val/loss", self.val_loss.compute())
        self.log("val/NDCG@10", self.ndcg.compute())
        self.val_loss.reset()
        self.ndcg.reset()
        self.query_ndcg = {
            query_id: value
            for query_ids, values, counted in self.validated
            for query_id, value, counts in zip(
                query_ids, values.tolist(), counted.tolist(), strict=True
            )
            if counts
        }
        self.validated = []

    def predicted(self, batches: Sequence[ScoredBatch]) -> list[Tensor]:
        """Predictions for batches, without gradients."""
        from torch.distributed.fsdp import FSDPModule

        self.eval()
        with torch.no_grad():
            found = [self(batch) for batch in batches]
        for module in self.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # what a forward pass leaves put together is a copy
        return found

    def calibrate_bias(self, batches: Sequence[ScoredBatch]) -> None:
        """Start with the bias at which predictions are, on average, as high as targets.

        Cosines of one model lie far above 0; without a bias the first thing that it learns is to
        press all of them down, which no ranking needs.
        """
        pairs = zip(batches, self.predicted(batches), strict=True)
        predictions = torch.cat([predicted[batch.mask] for batch, predicted in pairs])
        wanted = torch.cat([batch.target[batch.mask] for batch in batches]).mean()
        assert self.logit_bias is not None
        self.logit_bias.move(torch.logit(wanted.clamp(0.01, 0.99)) - predictions.mean())


class WeightedMean(Metric):  # type: ignore[misc]
    """Mean over all batches and ranks; torchmetrics' own waits for the device at every batch."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: Tensor) -> None:
        """Add values of any shape, and the weight of each."""
        self.total += (value * weight).sum()
        self.weight += weight.sum()

    def compute(self) -> Tensor:
        """The mean."""
        mean: Tensor = self.total / self.weight
        return mean


class LogitBias(nn.Module):
    """One number that is learned, and added to predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, predictions: Tensor) -> Tensor:
        """Predictions, higher or lower by it."""
        return predictions + self.weight

    @torch.no_grad()
    def move(self, by: Tensor) -> None:
        """Add `by`; of a number that is sharded (FSDP) one rank has all and the others nothing."""
        shard = self.weight.to_local() if hasattr(self.weight, "to_local") else self.weight
        shard += by.to(shard)
