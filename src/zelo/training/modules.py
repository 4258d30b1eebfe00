"""LightningModules: bi-encoder, pointwise cross-encoder and pairwise reranker.

They take token ids in chunks of similar length, so that little of the work is padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.aggregation import MeanMetric
from torchmetrics.functional.retrieval import retrieval_normalized_dcg

from zelo.models.segments import SegmentHead
from zelo.models.tokens import Features, attends_by_flash
from zelo.training.base_module import ZeloModule, freeze_pooler
from zelo.training.batches import PairwiseBatch, ScoredBatch
from zelo.training.losses import centre
from zelo.training.objectives import Objective
from zelo.training.options import TrainingOptions
from zelo.training.readers import PairReader, Reader, TextReader

SCALES = 0.5, 100.0  # a starting model whose scores hardly part, or part much, has no better one


class PointwiseModule(ZeloModule):
    """A sentence-transformers model that learns targets: its predictions under an objective."""

    cosine_scale: float | None  # factor of the cosine; None where the model has none
    reader: ClassVar[type[Reader]]  # how it reads queries and documents

    def __init__(
        self, model: Any, objective: Objective, training: TrainingOptions, steps: int
    ) -> None:
        super().__init__(model, training, steps)
        self.objective = objective
        self.ndcg, self.val_loss = MeanMetric(), MeanMetric()
        self.level: Level | None = None  # of a cosine that has to meet targets in [0, 1]
        self.to_match: Sequence[ScoredBatch] = []  # what scale or level of a cosine are matched on
        if model[0].transformer_task == "feature-extraction":
            freeze_pooler(self.backbone)
        if objective.level_free:
            for parameter in self.model.parameters():
                if parameter.shape == (1,):  # the last bias: all that would move it is rounding
                    parameter.requires_grad_(False)

    @property
    def backbone(self) -> nn.Module:
        """The transformer."""
        found: nn.Module = self.model[0].model
        return found

    @property
    def flash(self) -> bool:
        """Whether it attends by flash attention."""
        return attends_by_flash(self.backbone)

    def predict(self, batch: ScoredBatch) -> list[tuple[Tensor, Tensor | None]]:
        """Predictions (Q, K), and scores (Q, D) of other queries' documents where they cost
        nothing; more than one where the objective is to hold of several."""
        raise NotImplementedError

    def forward(self, batch: ScoredBatch) -> Tensor:
        """Predictions (queries, candidates) of the whole model."""
        return self.predict(batch)[0][0]

    def on_fit_start(self) -> None:
        """Match the scale or the level, on the device that trains."""
        goes_on = self.trainer.ckpt_path is not None  # with what the checkpoint holds
        if self.to_match and self.cosine_scale is not None and not goes_on:
            match = self.match_scale if self.level is None else self.match_level
            match([self.trainer.strategy.batch_to_device(b) for b in self.to_match])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the scale: training that goes on does so with the same."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["cosine_scale"] = self.cosine_scale

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the scale that training began with."""
        if checkpoint["cosine_scale"] is not None:
            self.cosine_scale = checkpoint["cosine_scale"]
        self.to_match = []

    def match_scale(self, batches: Sequence[ScoredBatch]) -> None:
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
            matched = (self.cosine_scale or 1.0) * float(wanted / spread)
            self.cosine_scale = min(max(matched, SCALES[0]), SCALES[1])

    def training_step(self, batch: ScoredBatch, batch_idx: int) -> Tensor:
        """This part's share of the mean loss of the step."""
        predictions = self.predict(batch)
        with torch.autocast(self.device.type, enabled=False):  # losses are of 32 bits
            totals = [self.objective.total(p, batch, others).sum() for p, others in predictions]
            loss = batch.share * torch.stack(totals).mean()
        return self.report(loss, batch.query_ids)

    def validation_step(self, batch: ScoredBatch, batch_idx: int) -> None:
        """Loss and NDCG@10 on held-out queries, with exp(target) as the gain: no label is needed.

        Targets of `centred_mse` are Elos: the gains are then those of `evaluation.elo_truth`.
        Scores are of 32 bits, whatever training is done in; each query is on one rank alone.
        """
        # Flash attention knows no 32 bits: it stays in training's precision.
        exactly = nullcontext() if self.flash else torch.autocast(self.device.type, enabled=False)
        with exactly:
            prediction, others = self.predict(batch)[0]
        size = self.objective.size(batch).sum()
        total = self.objective.total(prediction, batch, others).sum()
        self.val_loss.update(total / size.clamp_min(1e-12), size)
        for scores, target, mask in zip(prediction, batch.target, batch.mask, strict=True):
            if mask.any():
                gains = target[mask].exp()
                self.ndcg.update(retrieval_normalized_dcg(scores[mask], gains, top_k=10))

    def on_validation_epoch_end(self) -> None:
        """Log what all ranks saw."""
        self.log("val/loss", self.val_loss.compute())
        self.log("val/NDCG@10", self.ndcg.compute())
        self.val_loss.reset()
        self.ndcg.reset()

    def predicted(self, batches: Sequence[ScoredBatch]) -> list[Tensor]:
        """Predictions for batches, without gradients; flash attention in training's precision."""
        from torch.distributed.fsdp import FSDPModule

        self.eval()
        half = self.trainer.precision_plugin.forward_context() if self.flash else nullcontext()
        with torch.no_grad(), half:
            found = [self(batch) for batch in batches]
        for module in self.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # what a forward pass leaves put together is a copy
        return found

    def match_level(self, batches: Sequence[ScoredBatch]) -> None:
        """Start at the level at which predictions are, on average, as high as targets.

        Cosines of one model lie far above 0; without a level the first thing that it learns is to
        press all of them down, which no ranking needs.
        """
        pairs = zip(batches, self.predicted(batches), strict=True)
        predictions = torch.cat([predicted[batch.mask] for batch, predicted in pairs])
        wanted = torch.cat([batch.target[batch.mask] for batch in batches]).mean()
        assert self.level is not None
        self.level.move(torch.logit(wanted.clamp(0.01, 0.99)) - predictions.mean())


class Level(nn.Module):
    """One number that is learned, and added to predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, predictions: Tensor) -> Tensor:
        """Predictions on another level."""
        return predictions + self.weight

    @torch.no_grad()
    def move(self, by: Tensor) -> None:
        """Add `by`; of a number that is sharded (FSDP) one rank has all and the others nothing."""
        shard = self.weight.to_local() if hasattr(self.weight, "to_local") else self.weight
        shard += by.to(shard)


class BiEncoderModule(PointwiseModule):
    """Trains an embedding model so that `scale · cos(q, d)` meets the targets.

    Where these fix a level, one number is learned that is added to all predictions; it does not
    ship, as it changes no order.

    With `dimensions` (Matryoshka, arXiv 2205.13147) the objective is averaged over embeddings cut
    to each of them as well.
    """

    reader: ClassVar[type[Reader]] = TextReader

    def __init__(
        self,
        model: Any,
        scale: float,
        objective: Objective,
        training: TrainingOptions,
        steps: int,
        dimensions: Sequence[int] = (),
    ) -> None:
        super().__init__(model, objective, training, steps)
        self.cosine_scale: float = scale
        if not objective.level_free:
            self.level = Level()
        self.dimensions = [None, *dimensions]

    def predict(self, batch: ScoredBatch) -> list[tuple[Tensor, Tensor | None]]:
        """Each distinct text of the batch is embedded once."""
        q = self.run(batch.texts["queries"], self.embed)
        d = self.run(batch.texts["documents"], self.embed)
        # A query's own candidates are no strangers to it; places without a document point at 0.
        own = torch.zeros(len(q), len(d), device=q.device).scatter_add(1, batch.place, batch.weight)
        found: list[tuple[Tensor, Tensor | None]] = []
        for n in self.dimensions if torch.is_grad_enabled() else self.dimensions[:1]:
            with torch.autocast(q.device.type, enabled=False):  # cosines lie close together
                unit = [F.normalize(side[:, :n].float(), dim=1) for side in (q, d)]
                scores = self.cosine_scale * (unit[0] @ unit[1].T)
                if self.level is not None:
                    scores = self.level(scores)
            found.append((scores.gather(1, batch.place), scores.masked_fill(own > 0, -math.inf)))
        return found

    def embed(self, features: Features) -> Tensor:
        """Embeddings (texts, dimensions)."""
        embeddings: Tensor = self.model(dict(features))["sentence_embedding"]
        return embeddings


class CrossEncoderModule(PointwiseModule):
    """Trains a cross-encoder so that its scores meet the targets."""

    reader: ClassVar[type[Reader]] = PairReader

    @property
    def cosine_scale(self) -> float | None:
        """Factor of the cosine in a `segments` head; other heads have none."""
        head = self.model[-1]
        return head.scale if isinstance(head, SegmentHead) else None

    @cosine_scale.setter
    def cosine_scale(self, scale: float | None) -> None:
        self.model[-1].scale = scale

    def predict(self, batch: ScoredBatch) -> list[tuple[Tensor, Tensor | None]]:
        """One score per query and candidate; places without a document hold the first's."""
        return [(self.run(batch.texts["pairs"], self.score)[batch.place], None)]

    def score(self, features: Features) -> Tensor:
        """Raw scores (pairs,), float32."""
        scores: Tensor = self.model(dict(features))["scores"]
        return scores.squeeze(-1).float()


class PairwiseModule(ZeloModule):
    """Distils an ensemble: binary cross-entropy on soft preferences (METHOD, stage 3)."""

    def __init__(self, model: nn.Module, training: TrainingOptions, steps: int) -> None:
        super().__init__(model, training, steps)
        freeze_pooler(self.backbone)

    @property
    def backbone(self) -> nn.Module:
        """The transformer."""
        found: nn.Module = self.model.encoder
        return found

    def forward(self, batch: PairwiseBatch) -> Tensor:
        """Logits (pairs,) of P(a ≻ b)."""
        return self.run(batch.triples, self.model)

    def training_step(self, batch: PairwiseBatch, batch_idx: int) -> Tensor:
        """Cross-entropy between the ensemble's preferences and the model's."""
        logits = self(batch).float()
        with torch.autocast(self.device.type, enabled=False):
            loss = F.binary_cross_entropy_with_logits(logits, batch.preference, reduction="sum")
        return self.report(batch.share * loss, batch.query_ids)
