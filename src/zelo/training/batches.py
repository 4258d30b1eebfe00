"""DataModules: pairwise-judged and Thurstone-scored batches, made of token ids on the disk.

A step's batch depends on the seed, the epoch and its number alone; devices and accumulated parts
share it out between them. A loader remembers how many steps it has given, so that training resumed
from a checkpoint sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from zelo.models.tokens import Encoded, Flatten, TokenFile, flatten, tokenize
from zelo.seeding import stream

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class RatedQuery:
    """One training query with its rated documents."""

    query_id: str
    doc_ids: Sequence[str]
    targets: Sequence[float]
    stderrs: Sequence[float] | None = None
    judged: Sequence[tuple[int, int, float]] = ()  # places in doc_ids, preference for the first


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


@dataclass(frozen=True)
class Part:
    """Which part of a step's batch: `number` of `of`, over devices and accumulated steps."""

    number: int = 0
    of: int = 1


def ranks() -> tuple[int, int]:
    """This process's rank and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


class ResumableLoader(Generic[Batch]):
    """Epochs of batches made from shuffled items; its state is where it stands.

    Each step's batch is given in `parts`, and of each of them to every rank its own share.
    """

    def __init__(
        self,
        items: Sequence[Any],
        size: int,
        seed: int,
        collate: Callable[[list[Any], np.random.Generator, Part], Batch],
        parts: int = 1,
    ) -> None:
        self.items, self.size, self.seed, self.collate = items, size, seed, collate
        self.parts = parts
        self.epoch = self.given = 0

    def __len__(self) -> int:
        """Parts of batches per epoch."""
        return self.steps * self.parts

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return -(-len(self.items) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        if self.given >= self.steps:
            self.epoch, self.given = self.epoch + 1, 0
        rank, world = ranks()
        order = stream(self.seed, "epoch", str(self.epoch)).permutation(len(self.items))
        for number in range(self.given, self.steps):
            chosen = [self.items[i] for i in order[number * self.size : (number + 1) * self.size]]
            for part in range(self.parts):
                # A checkpoint between two parts stands before the step: its gradients are not kept.
                self.given = number + (part + 1 == self.parts)
                yield self.collate(
                    chosen,
                    stream(self.seed, str(self.epoch), str(number)),
                    Part(part * world + rank, self.parts * world),
                )

    def state_dict(self) -> dict[str, int]:
        """Where it stands."""
        return {"epoch": self.epoch, "given": self.given}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from where `state` stood."""
        self.epoch, self.given = state["epoch"], state["given"]


class Reader(Protocol):
    """How a kind of model reads queries and documents."""

    @staticmethod
    def tokenize(
        model: Any,
        rated: Sequence[RatedQuery],
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        out: Path,
    ) -> None:
        """Write token ids of texts by their id, as `model` reads them, below `out`."""
        ...

    @classmethod
    def open(cls, model: Any, rated: Sequence[RatedQuery], out: Path, budget: int) -> Reader:
        """Read what `tokenize` wrote for the same `rated`, `budget` tokens at a time."""
        ...

    def texts(
        self, drawn: Sequence[tuple[RatedQuery, Sequence[int]]]
    ) -> tuple[dict[str, Encoded], list[list[int]]]:
        """Inputs of queries with the drawn places of their documents, and each one's index."""
        ...

    def length(self, query: RatedQuery, picks: Sequence[int]) -> int:
        """Tokens that these documents of a query take."""
        ...


TOKENS = "tokens"  # folder of token files within a stage's output


@dataclass(frozen=True)
class PairReader:
    """A cross-encoder's: one row of tokens per query and document, query after query."""

    tokens: TokenFile
    start: Mapping[str, int]  # first row of each query
    budget: int
    flat: Flatten | None = None

    @staticmethod
    def tokenize(
        model: Any,
        rated: Sequence[RatedQuery],
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        out: Path,
    ) -> None:
        """Write token ids of every pair, unless they are there."""
        pairs = [(queries[one.query_id], documents[i]) for one in rated for i in one.doc_ids]
        prompt = model.prompts.get(model.default_prompt_name)
        tokenize(model, pairs, prompt, out / TOKENS / "pairs.arrow", "pairs")

    @classmethod
    def open(cls, model: Any, rated: Sequence[RatedQuery], out: Path, budget: int) -> PairReader:
        """Read what `tokenize` wrote for the same `rated`."""
        ends = np.cumsum([0, *(len(query.doc_ids) for query in rated)])
        start = {query.query_id: int(end) for query, end in zip(rated, ends, strict=False)}
        return cls(TokenFile(out / TOKENS / "pairs.arrow"), start, budget, flatten(model))

    def texts(
        self, drawn: Sequence[tuple[RatedQuery, Sequence[int]]]
    ) -> tuple[dict[str, Encoded], list[list[int]]]:
        """One input per query and document."""
        rows: list[int] = []
        places: list[list[int]] = []
        for query, picks in drawn:
            places.append(list(range(len(rows), len(rows) + len(picks))))
            rows += [self.start[query.query_id] + int(pick) for pick in picks]
        return {"pairs": self.tokens.encoded(rows, self.budget, self.flat)}, places

    def length(self, query: RatedQuery, picks: Sequence[int]) -> int:
        """Tokens of the pairs."""
        start = self.start[query.query_id]
        return int(self.tokens.lengths[[start + int(pick) for pick in picks]].sum())


@dataclass(frozen=True)
class TextReader:
    """A bi-encoder's: each distinct text of a batch is read once."""

    queries: TokenFile
    documents: TokenFile
    query_row: Mapping[str, int]
    document_row: Mapping[str, int]
    budget: int
    flat: Flatten | None = None

    @staticmethod
    def tokenize(
        model: Any,
        rated: Sequence[RatedQuery],
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        out: Path,
    ) -> None:
        """Write token ids of every query and every document, unless they are there."""
        texts = [queries[one.query_id] for one in rated]
        prompt = model.prompts.get("query")
        tokenize(model, texts, prompt, out / TOKENS / "queries.arrow", "queries")
        texts = [documents[doc_id] for doc_id in document_rows(rated)]
        prompt = model.prompts.get("document")
        tokenize(model, texts, prompt, out / TOKENS / "documents.arrow", "documents")

    @classmethod
    def open(cls, model: Any, rated: Sequence[RatedQuery], out: Path, budget: int) -> TextReader:
        """Read what `tokenize` wrote for the same `rated`."""
        queries, documents = (
            TokenFile(out / TOKENS / f"{name}.arrow") for name in ("queries", "documents")
        )
        query_row = {query.query_id: row for row, query in enumerate(rated)}
        return cls(queries, documents, query_row, document_rows(rated), budget, flatten(model))

    def texts(
        self, drawn: Sequence[tuple[RatedQuery, Sequence[int]]]
    ) -> tuple[dict[str, Encoded], list[list[int]]]:
        """One input per query, one per distinct document."""
        index: dict[str, int] = {}
        places = [
            [index.setdefault(query.doc_ids[pick], len(index)) for pick in picks]
            for query, picks in drawn
        ]
        q = [self.query_row[query.query_id] for query, _ in drawn]
        d = [self.document_row[doc_id] for doc_id in index]
        return {
            "queries": self.queries.encoded(q, self.budget, self.flat),
            "documents": self.documents.encoded(d, self.budget, self.flat),
        }, places

    def length(self, query: RatedQuery, picks: Sequence[int]) -> int:
        """Tokens of the query and the documents."""
        rows = [self.document_row[query.doc_ids[pick]] for pick in picks]
        own = self.queries.lengths[self.query_row[query.query_id]]
        return int(own + self.documents.lengths[rows].sum())


def document_rows(rated: Sequence[RatedQuery]) -> dict[str, int]:
    """Row of each distinct document, in the order of their first appearance."""
    rows: dict[str, int] = {}
    for query in rated:
        for doc_id in query.doc_ids:
            rows.setdefault(doc_id, len(rows))
    return rows


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
        rank, world = ranks()
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
        self, rated: Sequence[RatedQuery], rng: np.random.Generator, part: Part = Part()
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
            weight[row, :n] = 1.0 if query.stderrs is None else weights(query.stderrs)[list(picks)]
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


def weights(stderrs: Sequence[float]) -> Tensor:
    """Weights (K,) of documents by the standard errors of their Elos, 1 on average.

    `w_i ∝ 1 / (σ_i² + σ̄²)`, where σ̄² is the query's mean variance: how precise a target is counts,
    and the most precise one counts at most twice what an average one does.
    """
    variance = torch.tensor(stderrs, dtype=torch.float32).square()
    weight = 1 / (variance + variance.mean().clamp_min(1e-12))
    return weight / weight.mean()


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
        self, judged: Sequence[Judged], rng: np.random.Generator, part: Part = Part()
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
