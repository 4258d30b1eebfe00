"""LightningModules: bi-encoder, pointwise cross-encoder and pairwise reranker.

Texts reach them as strings: tokenisation belongs to the model, and a batch's texts are read in
chunks of similar length so that little of the work is padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics.retrieval import RetrievalNormalizedDCG

from zelo.errors import UserError
from zelo.models.batching import by_length
from zelo.models.pairwise import PairwiseReranker
from zelo.models.segments import SegmentHead
from zelo.training.batches import PairwiseBatch, ScoredBatch
from zelo.training.objectives import Objective, centre
from zelo.training.options import TrainingOptions

SCALES = 0.5, 100.0  # a starting model whose scores hardly part, or part much, has no better one


class ZeloModule(LightningModule):  # type: ignore[misc]
    """What the three have in common: AdamW, a schedule, layers that stay as they are.

    Dropout is off: with targets that are averages of many comparisons and a single epoch it only
    adds noise, and a resumed run draws nothing that an undisturbed one does not.
    """

    def __init__(self, training: TrainingOptions, steps: int) -> None:
        super().__init__()
        self.training_options, self.steps = training, steps

    def configure_optimizers(self) -> Any:
        """AdamW; the rate rises linearly over the warm-up and falls linearly to 0."""
        options = self.training_options
        optimizer = torch.optim.AdamW(
            [parameter for parameter in self.parameters() if parameter.requires_grad],
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
        )
        warmup = max(round(options.warmup * self.steps), 1)

        def rate(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return max(self.steps - step, 0) / max(self.steps - warmup, 1)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Switch dropout off."""
        self.eval()

    def report(self, loss: Tensor, size: int) -> Tensor:
        """Log the loss of a step and pass it on."""
        self.log("train/loss", loss, batch_size=size)
        return loss

    def in_chunks(self, texts: Sequence[Any], run: Callable[[list[Any]], Tensor]) -> Tensor:
        """Apply `run` to chunks of texts of similar length; rows come back in the texts' order."""
        chunks = by_length([len(str(text)) for text in texts], self.training_options.chunk)
        rows = torch.cat([run([texts[i] for i in chunk]) for chunk in chunks])
        order = torch.tensor([i for chunk in chunks for i in chunk], device=rows.device)
        return rows[order.argsort()]

    def moved(self, features: dict[str, Any]) -> dict[str, Any]:
        """Tensors of `features` on this module's device."""
        return {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in features.items()}


class PointwiseModule(ZeloModule):
    """A sentence-transformers model that learns targets: its predictions under an objective."""

    cosine_scale: float | None  # factor of the cosine; None where the model has none

    def __init__(
        self, model: Any, objective: Objective, training: TrainingOptions, steps: int
    ) -> None:
        super().__init__(training, steps)
        self.model, self.objective = model, objective
        self.ndcg = RetrievalNormalizedDCG(top_k=10)
        self.to_match: Sequence[ScoredBatch] = []  # what the scale of the cosine is matched on
        freeze(model[0].model, training.frozen_layers)

    def on_fit_start(self) -> None:
        """Match the scale, on the device that trains."""
        if self.to_match and self.cosine_scale is not None:
            self.match_scale([self.trainer.strategy.batch_to_device(b) for b in self.to_match])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the scale: training that goes on does so with the same."""
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
        self.eval()
        with torch.no_grad():
            predictions = [centre(self(batch), batch.mask)[batch.mask] for batch in batches]
        targets = [centre(batch.target, batch.mask)[batch.mask] for batch in batches]
        spread = torch.cat(predictions).std()
        wanted = torch.cat(targets).std()
        if spread > 0 and wanted > 0:
            matched = (self.cosine_scale or 1.0) * float(wanted / spread)
            self.cosine_scale = min(max(matched, SCALES[0]), SCALES[1])

    def training_step(self, batch: ScoredBatch, batch_idx: int) -> Tensor:
        """Loss of the objective."""
        return self.report(
            self.objective(self(batch), batch.target, batch.mask), len(batch.queries)
        )

    def validation_step(self, batch: ScoredBatch, batch_idx: int) -> None:
        """Loss and NDCG@10 on held-out queries, with exp(target) as the gain: no label is needed.

        Targets of `centred_mse` are Elos: the gains are then those of `evaluation.elo_truth`.
        """
        prediction = self(batch)
        loss = self.objective(prediction, batch.target, batch.mask)
        self.log("val/loss", loss, batch_size=len(batch.queries))
        rows = torch.arange(len(batch.queries), device=loss.device)[:, None].expand_as(batch.mask)
        self.ndcg.update(
            prediction[batch.mask],
            batch.target.exp()[batch.mask],
            indexes=(rows + batch_idx * 2**20)[batch.mask],
        )
        self.log("val/NDCG@10", self.ndcg, on_epoch=True, batch_size=len(batch.queries))


class BiEncoderModule(PointwiseModule):
    """Trains an embedding model so that `scale · cos(q, d)` meets the targets."""

    def __init__(
        self,
        model: Any,
        scale: float,
        objective: Objective,
        training: TrainingOptions,
        steps: int,
    ) -> None:
        super().__init__(model, objective, training, steps)
        self.cosine_scale: float = scale

    def forward(self, batch: ScoredBatch) -> Tensor:
        """Predictions (queries, candidates): each distinct text of the batch is embedded once."""
        q = self.embed(batch.queries, self.model.prompts.get("query"))
        d = self.embed(batch.documents, self.model.prompts.get("document"))
        return self.cosine_scale * torch.einsum("qh,qkh->qk", q, d[batch.place])

    def embed(self, texts: Sequence[str], prompt: str | None) -> Tensor:
        """Unit embeddings (texts, dimensions)."""

        def run(chunk: list[str]) -> Tensor:
            features = self.moved(self.model.preprocess(chunk, prompt=prompt or None))
            return F.normalize(self.model(features)["sentence_embedding"], dim=1)

        return self.in_chunks(texts, run)


class CrossEncoderModule(PointwiseModule):
    """Trains a cross-encoder so that its scores meet the targets."""

    @property
    def cosine_scale(self) -> float | None:
        """Factor of the cosine in a `segments` head; other heads have none."""
        head = self.model[-1]
        return head.scale if isinstance(head, SegmentHead) else None

    @cosine_scale.setter
    def cosine_scale(self, scale: float | None) -> None:
        self.model[-1].scale = scale

    def forward(self, batch: ScoredBatch) -> Tensor:
        """Predictions (queries, candidates); places without a document hold 0."""
        rows, columns = batch.mask.nonzero(as_tuple=True)
        places = batch.place[rows, columns].tolist()
        pairs = [
            (batch.queries[row], batch.documents[place])
            for row, place in zip(rows.tolist(), places, strict=True)
        ]
        scores = self.in_chunks(pairs, self.score)
        return torch.zeros_like(batch.target).index_put((rows, columns), scores.float())

    def score(self, pairs: list[tuple[str, str]]) -> Tensor:
        """Raw scores (pairs,)."""
        scores: Tensor = self.model(self.moved(self.model.preprocess(pairs)))["scores"]
        return scores.squeeze(-1)


class PairwiseModule(ZeloModule):
    """Distils an ensemble: binary cross-entropy on soft preferences (METHOD, stage 3)."""

    def __init__(self, model: PairwiseReranker, training: TrainingOptions, steps: int) -> None:
        super().__init__(training, steps)
        self.model = model
        freeze(model.encoder, training.frozen_layers)

    def forward(self, batch: PairwiseBatch) -> Tensor:
        """Logits (pairs,) of P(a ≻ b)."""
        return self.in_chunks(
            batch.triples, lambda part: self.model(self.moved(self.model.encode(part)))
        )

    def training_step(self, batch: PairwiseBatch, batch_idx: int) -> Tensor:
        """Cross-entropy between the ensemble's preferences and the model's."""
        loss = F.binary_cross_entropy_with_logits(self(batch), batch.preference)
        return self.report(loss, len(batch.triples))


def freeze(encoder: nn.Module, layers: int) -> None:
    """Keep the embeddings and the lowest `layers` layers of a transformer as they are; 0: none.

    No gradient passes below them, which saves much of the work. Raises `UserError` where the
    encoder has no more layers than that.
    """
    if layers == 0:
        return
    config: Any = encoder.config
    depth = config.num_hidden_layers
    stacks = (m for m in encoder.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)
    stack = next(stacks, None)
    if stack is None or layers >= depth:
        raise UserError(
            f"training.frozen_layers={layers}: the encoder has {depth} layers, one must learn"
        )
    for module in stack[:layers]:
        module.requires_grad_(False)
    for name, parameter in encoder.named_parameters():
        if "embed" in name:
            parameter.requires_grad_(False)
