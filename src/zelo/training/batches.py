"""DataModules: pairwise-judged and Thurstone-scored batches.

The order of batches depends on the seed and the epoch alone, and a loader remembers how many it
has given, so that training resumed from a checkpoint sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from zelo.models.pairwise import Triple
from zelo.seeding import stream

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class ScoredBatch:
    """Queries with rated documents: Q queries, at most K candidates each, D distinct documents."""

    queries: list[str]  # Q texts
    documents: list[str]  # D texts
    place: Tensor  # (Q, K) int64, index into documents
    target: Tensor  # (Q, K) float32
    mask: Tensor  # (Q, K) bool, whether a place holds a document


@dataclass(frozen=True)
class PairwiseBatch:
    """Comparisons with the ensemble's preference."""

    triples: list[Triple]  # query, first document, second document
    preference: Tensor  # (triples,) float32 in [0, 1], P(first ≻ second)


@dataclass(frozen=True)
class RatedQuery:
    """One training query with its rated documents."""

    query: str
    doc_ids: Sequence[str]
    targets: Sequence[float]


class ResumableLoader(Generic[Batch]):
    """Epochs of batches made from shuffled items; its state is where it stands."""

    def __init__(self, items: Sequence[Any], size: int, seed: int, collate: Any) -> None:
        self.items, self.size, self.seed, self.collate = items, size, seed, collate
        self.epoch = self.given = 0

    def __len__(self) -> int:
        """Batches per epoch."""
        return -(-len(self.items) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        if self.given >= len(self):
            self.epoch, self.given = self.epoch + 1, 0
        rng = stream(self.seed, "epoch", str(self.epoch))
        order = rng.permutation(len(self.items))
        for number in range(self.given, len(self)):
            chosen = order[number * self.size : (number + 1) * self.size]
            self.given = number + 1
            yield self.collate(
                [self.items[i] for i in chosen], stream(self.seed, str(self.epoch), str(number))
            )

    def state_dict(self) -> dict[str, int]:
        """Where it stands."""
        return {"epoch": self.epoch, "given": self.given}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from where `state` stood."""
        self.epoch, self.given = state["epoch"], state["given"]


class ScoredDataModule(LightningDataModule):  # type: ignore[misc]
    """Thurstone-scored batches: whole queries with their rated documents."""

    def __init__(
        self,
        rated: Sequence[RatedQuery],
        documents: Mapping[str, str],
        batch: int,
        candidates: int | None,
        seed: int,
        held_out: Sequence[RatedQuery] = (),
    ) -> None:
        super().__init__()
        self.documents, self.candidates = documents, candidates
        self.held_out = [held_out[i : i + batch] for i in range(0, len(held_out), batch)]
        self.loader: ResumableLoader[ScoredBatch] = ResumableLoader(
            rated, batch, seed, self.collate
        )

    def train_dataloader(self) -> ResumableLoader[ScoredBatch]:
        """Batches of `batch` queries."""
        return self.loader

    def val_dataloader(self) -> DataLoader[ScoredBatch]:
        """The held-out queries with all of their rated documents, in batches that never change."""
        rng = stream(0, "held out")
        batches = [self.collate(part, rng, drawn=False) for part in self.held_out]
        return DataLoader(batches, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def collate(
        self, rated: Sequence[RatedQuery], rng: np.random.Generator, drawn: bool = True
    ) -> ScoredBatch:
        """Put queries together; where they have more than `candidates` documents, draw some, or
        take all of them where not `drawn`."""
        chosen = []
        for query in rated:
            n = len(query.doc_ids)
            keep = min(n, self.candidates or n) if drawn else n
            chosen.append(np.sort(rng.choice(n, size=keep, replace=False)))
        width = max(map(len, chosen))
        place = torch.zeros(len(rated), width, dtype=torch.long)
        target = torch.zeros(len(rated), width)
        mask = torch.zeros(len(rated), width, dtype=torch.bool)
        index: dict[str, int] = {}
        for row, (query, picks) in enumerate(zip(rated, chosen, strict=True)):
            for column, pick in enumerate(picks):
                place[row, column] = index.setdefault(query.doc_ids[pick], len(index))
                target[row, column] = query.targets[pick]
                mask[row, column] = True
        return ScoredBatch(
            queries=[query.query for query in rated],
            documents=[self.documents[doc_id] for doc_id in index],
            place=place,
            target=target,
            mask=mask,
        )

    def transfer_batch_to_device(
        self, batch: ScoredBatch, device: torch.device, dataloader_idx: int
    ) -> ScoredBatch:
        """Tensors on `device`; texts stay where they are."""
        return replace(
            batch,
            place=batch.place.to(device),
            target=batch.target.to(device),
            mask=batch.mask.to(device),
        )


class PairwiseDataModule(LightningDataModule):  # type: ignore[misc]
    """Pairwise-judged batches: triples of texts with the ensemble's preference."""

    def __init__(self, judged: Sequence[tuple[Triple, float]], batch: int, seed: int) -> None:
        super().__init__()
        self.loader: ResumableLoader[PairwiseBatch] = ResumableLoader(
            judged, batch, seed, self.collate
        )

    def train_dataloader(self) -> ResumableLoader[PairwiseBatch]:
        """Batches of `batch` comparisons."""
        return self.loader

    def collate(
        self, judged: Sequence[tuple[Triple, float]], rng: np.random.Generator
    ) -> PairwiseBatch:
        """Put comparisons together, each in an order drawn anew: the model learns no position."""
        swap = rng.random(len(judged)) < 0.5
        triples = [
            (q, b, a) if s else (q, a, b) for ((q, a, b), _), s in zip(judged, swap, strict=True)
        ]
        preference = [1 - p if s else p for (_, p), s in zip(judged, swap, strict=True)]
        return PairwiseBatch(triples, torch.tensor(preference, dtype=torch.float32))

    def transfer_batch_to_device(
        self, batch: PairwiseBatch, device: torch.device, dataloader_idx: int
    ) -> PairwiseBatch:
        """Preferences on `device`; texts stay where they are."""
        return replace(batch, preference=batch.preference.to(device))
