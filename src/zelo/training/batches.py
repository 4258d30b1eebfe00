"""Batches of a step: queries with Thurstone-scored documents, and pairwise-judged triples.

A step's batch is cut into micro-batches, one for each device and each accumulated part. Lightning
takes the mean of their losses, so that each sums its own and multiplies by `loss_scale`: the result
is the mean over the whole batch, however it was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zelo.models.tokens import Chunks
from zelo.training.losses import documents
from zelo.training.rated_queries import RatedQuery

Drawn = Sequence[tuple[RatedQuery, Sequence[int]]]  # queries, and which of their documents
# Fields of `ScoredBatch` that are tensors.
SCORED_TENSORS = ("document_index", "target", "elo", "weight", "compared", "preference")


@dataclass(frozen=True)
class ScoredBatch:
    """Queries with rated documents: Q queries, at most K documents each, P comparisons.

    A module reads `inputs` and arranges what it makes of them by `document_index`:
    `batch.inputs["pairs"].apply(model)[batch.document_index]` is (Q, K).
    """

    query_ids: list[str]  # Q, for messages
    inputs: Mapping[str, Chunks]  # `pairs`, or `queries` and `documents` of a bi-encoder
    document_index: Tensor  # (Q, K) int64: which of the pairs, or of the documents
    target: Tensor  # (Q, K) float32
    elo: Tensor  # (Q, K) float32: what NDCG takes for truth; targets where no Elos are known
    weight: Tensor  # (Q, K) float32; 0 where a row has no more documents
    compared: Tensor  # (3, P) int64: row, columns of the first and of the second document
    preference: Tensor  # (P,) float32 in [0, 1], for the first
    step: ScoredBatch | None = None  # all of the step's queries, without inputs; None: these
    micro_batches: int = 1  # in the step; 0 where this one repeats what others have

    @property
    def mask(self) -> Tensor:
        """Where there is a document (Q, K)."""
        return self.weight > 0

    def loss_scale(self, size: Callable[[ScoredBatch], Tensor] | None = None) -> float:
        """Factor of a loss that is summed over this batch; `size` (Q,) is what a query counts in
        the mean, None: its documents."""
        whole = self.step or self
        counts = documents(whole.weight) if size is None else size(whole)
        return self.micro_batches / max(float(counts.sum()), 1e-12)

    def to(self, device: torch.device) -> ScoredBatch:
        """Tensors on `device`; those of `step` stay, as they are counted and not computed with."""
        return self.with_tensors(
            {name: chunks.to(device) for name, chunks in self.inputs.items()},
            lambda tensor: tensor.to(device, non_blocking=True),
        )

    def pin_memory(self) -> ScoredBatch:
        """Tensors in pinned memory, from which `to` does not wait for the device."""
        return self.with_tensors(
            {name: chunks.pin_memory() for name, chunks in self.inputs.items()}, Tensor.pin_memory
        )

    def with_tensors(
        self, inputs: Mapping[str, Chunks], move: Callable[[Tensor], Tensor]
    ) -> ScoredBatch:
        """The same batch elsewhere."""
        moved: dict[str, Any] = {name: move(getattr(self, name)) for name in SCORED_TENSORS}
        return replace(self, inputs=inputs, **moved)

    def uncounted(self) -> ScoredBatch:
        """The same inputs, which count for nothing: a rank without work reads them, as others
        wait for it."""
        return replace(
            self,
            weight=0 * self.weight,
            compared=self.compared[:, :0],
            preference=self.preference[:0],
        )


def scored_batch(
    drawn: Drawn, inputs: Mapping[str, Chunks], index: Sequence[Sequence[int]]
) -> ScoredBatch:
    """Put queries with the drawn of their documents together; `index` is each one's input."""
    width = max(len(picks) for _, picks in drawn)
    document_index = torch.zeros(len(drawn), width, dtype=torch.long)
    target, elo, weight = torch.zeros(3, len(drawn), width)
    compared: list[tuple[int, int, int]] = []
    preference: list[float] = []
    for row, (query, picks) in enumerate(drawn):
        n = len(picks)
        document_index[row, :n] = torch.tensor(index[row])
        target[row, :n] = torch.tensor([query.targets[pick] for pick in picks])
        elos = query.targets if query.elos is None else query.elos
        elo[row, :n] = torch.tensor([elos[pick] for pick in picks])
        weight[row, :n] = (
            1.0 if query.weights is None else torch.tensor([query.weights[p] for p in picks])
        )
        column = {pick: i for i, pick in enumerate(picks)}
        for first, second, p in query.judged:
            if first in column and second in column:
                compared.append((row, column[first], column[second]))
                preference.append(p)
    return ScoredBatch(
        query_ids=[query.query_id for query, _ in drawn],
        inputs=inputs,
        document_index=document_index,
        target=target,
        elo=elo,
        weight=weight,
        compared=torch.tensor(compared, dtype=torch.long).reshape(-1, 3).T,
        preference=torch.tensor(preference),
    )


@dataclass(frozen=True)
class PairwiseBatch:
    """Triples of texts with the ensemble's preference."""

    query_ids: list[str]  # of each triple, for messages
    triples: Chunks  # query, first document, second document
    preference: Tensor  # (triples,) float32 in [0, 1], P(first ≻ second)
    loss_scale: float  # factor of a loss that is summed over this batch

    def to(self, device: torch.device) -> PairwiseBatch:
        """Tensors on `device`."""
        preference = self.preference.to(device, non_blocking=True)
        return replace(self, triples=self.triples.to(device), preference=preference)

    def pin_memory(self) -> PairwiseBatch:
        """Tensors in pinned memory, from which `to` does not wait for the device."""
        preference = self.preference.pin_memory()
        return replace(self, triples=self.triples.pin_memory(), preference=preference)
