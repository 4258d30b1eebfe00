"""DataModules: pairwise-judged and Thurstone-scored batches, made of token ids on the disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from zelo.distributed.ranks import this_process
from zelo.models.tokens import Encoded, TokenFile
from zelo.training.lessons import RatedQuery
from zelo.training.loader import WHOLE, Part, ResumableLoader
from zelo.training.readers import Reader


@dataclass(frozen=True)
class ScoredBatch:
    """Queries with rated documents: Q queries, at most K candidates each, P comparisons."""

    query_ids: list[str]  # Q, for messages
    texts: dict[str, Encoded]  # `pairs` of a cross-encoder; `queries` and `documents` of another
    place: Tensor  # (Q, K) int64, index into `pairs`, or into `documents`
    target: Tensor  # (Q, K) float32
    weight: Tensor  # (Q, K) float32, 0 where a place holds no document
    compared: Tensor  # (3, P) int64: row, place of the first and of the second document
    preference: Tensor  # (P,) float32 in [0, 1], for the first
    share: float = 1.0  # by what summed losses are multiplied to be this part's of the mean

    @property
    def mask(self) -> Tensor:
        """Whether a place (Q, K) holds a document."""
        return self.weight > 0

    def to(self, device: torch.device) -> ScoredBatch:
        """Tensors on `device`."""
        moved = {
            name: getattr(self, name).to(device)
            for name in ("place", "target", "weight", "compared", "preference")
        }
        return replace(self, texts={k: t.to(device) for k, t in self.texts.items()}, **moved)


@dataclass(frozen=True)
class PairwiseBatch:
    """Comparisons with the ensemble's preference."""

    query_ids: list[str]  # of each comparison, for messages
    triples: Encoded  # query, first document, second document
    preference: Tensor  # (triples,) float32 in [0, 1], P(first ≻ second)
    share: float = 1.0

    def to(self, device: torch.device) -> PairwiseBatch:
        """Tensors on `device`."""
        return replace(self, triples=self.triples.to(device), preference=self.preference.to(device))


@dataclass(eq=False)
class ScoredDataModule(LightningDataModule):  # type: ignore[misc]
    """Thurstone-scored batches: whole queries with their rated documents.

    `batch` queries make a step, over all devices; of each at most `candidates` documents are
    drawn, anew each epoch. `size` says what each query of a batch counts in the mean.
    """

    rated: Sequence[RatedQuery]
    reader: Reader
    batch: int
    candidates: int | None
    seed: int
    size: Callable[[ScoredBatch], Tensor]
    held_out: Sequence[RatedQuery] = ()
    parts: int = 1
    loader: ResumableLoader[ScoredBatch] = field(init=False)

    def __post_init__(self) -> None:
        super().__init__()
        self.loader = ResumableLoader(self.rated, self.batch, self.seed, self.collate, self.parts)

    def train_dataloader(self) -> ResumableLoader[ScoredBatch]:
        """This rank's parts of the steps' batches."""
        return self.loader

    def val_dataloader(self) -> DataLoader[ScoredBatch]:
        """The held-out queries with all of their rated documents, each on one rank only.

        Batches are the same however many ranks there are, and so are the scores. A rank that has
        fewer than another has an empty one, as the others wait for it.
        """
        rank, world, _ = this_process()
        starts = range(0, len(self.held_out), self.batch)
        batches = [
            self.assemble([(q, range(len(q.doc_ids))) for q in self.held_out[i : i + self.batch]])
            for i in (starts[rank::world] or starts[:1])
        ]
        if rank >= len(starts):
            batches = [empty(batch) for batch in batches]
        while len(batches) < -(-len(starts) // world):
            batches.append(empty(batches[-1]))
        return DataLoader(batches, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def collate(
        self, rated: Sequence[RatedQuery], rng: np.random.Generator, part: Part = WHOLE
    ) -> ScoredBatch:
        """One part of a step's batch; the documents of all of it are drawn, on every rank alike."""
        drawn = []
        for query in rated:
            n = len(query.doc_ids)
            keep = min(n, self.candidates or n)
            drawn.append((query, np.sort(rng.choice(n, size=keep, replace=False)).tolist()))
        total = float(self.size(self.assemble(drawn, read=False)).sum())
        # The longest first, dealt out in turn: parts take about as long as one another.
        if part.of > 1:
            drawn.sort(key=lambda item: -self.reader.length(*item))
        own = drawn[part.number :: part.of]
        # A part without a query still goes through the model, as the other ranks wait for it.
        share = part.of / max(total, 1e-12) if own else 0.0
        return replace(self.assemble(own or drawn[:1]), share=share)

    def assemble(
        self, drawn: Sequence[tuple[RatedQuery, Sequence[int]]], read: bool = True
    ) -> ScoredBatch:
        """Put queries with the drawn places of their documents together; texts only if `read`."""
        texts, places = self.reader.texts(drawn) if read else ({}, [[0] * len(p) for _, p in drawn])
        width = max(len(picks) for _, picks in drawn)
        place = torch.zeros(len(drawn), width, dtype=torch.long)
        target, weight = torch.zeros(2, len(drawn), width)
        compared: list[tuple[int, int, int]] = []
        preference: list[float] = []
        for row, (query, picks) in enumerate(drawn):
            n = len(picks)
            place[row, :n] = torch.tensor(places[row])
            target[row, :n] = torch.tensor([query.targets[pick] for pick in picks])
            weight[row, :n] = (
                1.0 if query.weights is None else torch.tensor([query.weights[p] for p in picks])
            )
            at = {pick: column for column, pick in enumerate(picks)}
            for first, second, p in query.judged:
                if first in at and second in at:
                    compared.append((row, at[first], at[second]))
                    preference.append(p)
        return ScoredBatch(
            query_ids=[query.query_id for query, _ in drawn],
            texts=texts,
            place=place,
            target=target,
            weight=weight,
            compared=torch.tensor(compared, dtype=torch.long).reshape(-1, 3).T,
            preference=torch.tensor(preference),
        )

    def transfer_batch_to_device(
        self, batch: ScoredBatch, device: torch.device, dataloader_idx: int
    ) -> ScoredBatch:
        """Tensors on `device`."""
        return batch.to(device)


def empty(batch: ScoredBatch) -> ScoredBatch:
    """The same texts, which count for nothing."""
    return replace(
        batch,
        weight=0 * batch.weight,
        compared=batch.compared[:, :0],
        preference=batch.preference[:0],
    )


@dataclass(frozen=True)
class Judged:
    """A comparison: its query, where its token ids lie, the ensemble's preference for the first."""

    query_id: str
    row: int  # of (q, a, b); (q, b, a) is the next
    preference: float


@dataclass(eq=False)
class PairwiseDataModule(LightningDataModule):  # type: ignore[misc]
    """Pairwise-judged batches: triples of texts with the ensemble's preference."""

    judged: Sequence[Judged]
    tokens: TokenFile
    batch: int
    seed: int
    budget: int
    parts: int = 1
    loader: ResumableLoader[PairwiseBatch] = field(init=False)

    def __post_init__(self) -> None:
        super().__init__()
        self.loader = ResumableLoader(self.judged, self.batch, self.seed, self.collate, self.parts)

    def train_dataloader(self) -> ResumableLoader[PairwiseBatch]:
        """This rank's parts of batches of `batch` comparisons."""
        return self.loader

    def collate(
        self, judged: Sequence[Judged], rng: np.random.Generator, part: Part = WHOLE
    ) -> PairwiseBatch:
        """Put comparisons together, each in an order drawn anew: the model learns no position."""
        swap = rng.random(len(judged)) < 0.5
        shown = [
            (one.query_id, one.row + int(s), 1 - one.preference if s else one.preference)
            for one, s in zip(judged, swap, strict=True)
        ]
        own = shown[part.number :: part.of]
        query_ids, rows, preference = zip(*(own or shown[:1]), strict=True)
        return PairwiseBatch(
            list(query_ids),
            self.tokens.encoded(rows, self.budget),
            torch.tensor(preference, dtype=torch.float32),
            share=part.of / len(shown) if own else 0.0,
        )

    def transfer_batch_to_device(
        self, batch: PairwiseBatch, device: torch.device, dataloader_idx: int
    ) -> PairwiseBatch:
        """Tensors on `device`."""
        return batch.to(device)
