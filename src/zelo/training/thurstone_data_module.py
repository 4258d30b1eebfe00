"""The DataModule of Thurstone-scored batches, which rerankers and embedding models learn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from zelo.data.texts import document_texts, query_instructions, query_texts
from zelo.errors import UserError
from zelo.finished_run import FinishedRun
from zelo.models.loading import without_weights
from zelo.seeding import stream
from zelo.training.batches import Drawn, ScoredBatch, scored_batch
from zelo.training.bi_encoder import BiEncoder
from zelo.training.cross_encoder import CrossEncoder
from zelo.training.loader import Division, MicroBatch, ResumableLoader, ahead, steps_of
from zelo.training.rated_queries import RatedDataset, RatedQuery
from zelo.training.tokenized import RatedTexts
from zelo.training.tokenized_data_module import TokenizedDataModule
from zelo.training.trainable import TrainableModel

CALIBRATING = 32  # queries that a cosine is calibrated on
VALIDATED_AT_ONCE = 256  # queries, at most
ARCHITECTURES: dict[str, type[TrainableModel]] = {
    "cross_encoder": CrossEncoder,
    "bi_encoder": BiEncoder,
}


class ThurstoneDataModule(TokenizedDataModule):
    """Thurstone-scored batches: whole queries with their rated documents.

    `collection` is a folder with `queries.parquet` and `documents.parquet` (stage `load`) or one in
    BEIR layout, `ratings` one with `ratings.parquet` (stage `rate`), `judgments` those that
    objectives on comparisons read. `model` is a hub name, a folder or a component with its options,
    `architecture` (cross_encoder, bi_encoder) and `head` say what it becomes. `batch_size` queries
    make a step, over all devices; of each at most `docs_per_query` documents are drawn, anew each
    epoch, None: all. `validation_fraction` of the queries, by a hash of their text,
    validate, None: as many as `queries_to_hold_out` says. `stderr_weights` weighs documents by the
    standard errors of their Elos; with `source_is_positive` a written query's source is its best
    document. Texts are tokenised in `cache_dir`, None: `~/.cache/zelo/tokens`.
    """

    def __init__(
        self,
        collection: str | Path,
        ratings: str | Path,
        model: str | Path | TrainableModel | Mapping[str, Any],
        *,
        architecture: str = "cross_encoder",
        head: str | None = None,
        max_length: int | None = None,
        judgments: Sequence[str | Path] = (),
        batch_size: int = 4,
        docs_per_query: int | None = 16,
        validation_fraction: float | None = 0.0,
        stderr_weights: bool = False,
        source_is_positive: bool = False,
        max_tokens_per_forward: int | None = None,
        seed: int = 0,
        cache_dir: str | Path | None = None,
    ) -> None:
        super().__init__(collection, batch_size, max_tokens_per_forward, seed, cache_dir)
        self.model = trainable_model(model, architecture, head, max_length)
        self.ratings, self.judgments = Path(ratings), [Path(folder) for folder in judgments]
        self.docs_per_query, self.stderr_weights = docs_per_query, stderr_weights
        self.validation_fraction = validation_fraction
        self.source_is_positive = source_is_positive
        self.keep_options(
            ratings=self.ratings,
            judgments=self.judgments,
            docs_per_query=docs_per_query,
            validation_fraction=validation_fraction,
            stderr_weights=stderr_weights,
            source_is_positive=source_is_positive,
        )

    @classmethod
    def from_run(
        cls, run: str | Path, model: str | Path | TrainableModel | Mapping[str, Any], **options: Any
    ) -> ThurstoneDataModule:
        """Batches of what a finished run rated, in its last pass; `options` are the others."""
        finished = FinishedRun.at(Path(run))
        collection, ratings = finished.collection_folder(), finished.ratings_folder()
        judgments = finished.judgments_folders()
        return cls(collection, ratings, model, **{"judgments": judgments, **options})

    @cached_property
    def dataset(self) -> RatedDataset:
        """Rated queries, those that validate apart."""
        return RatedDataset.read(
            self.collection,
            self.ratings,
            self.judgments,
            self.validation_fraction,
            self.stderr_weights,
            self.source_is_positive,
        )

    @cached_property
    def network(self) -> Any:
        """The model without its weights, which says how texts are read."""
        return without_weights(self.model.network)

    @cached_property
    def tokens(self) -> Path:
        """Folder of the token ids."""
        tables = [self.collection / f"{name}.parquet" for name in ("queries", "documents")]
        if self.source_is_positive:  # it need not be rated
            tables.append(self.collection / "written.parquet")
        return self.cached_in(self.model, [*tables, self.ratings / "ratings.parquet"])

    def prepare_data(self) -> None:
        """Tokenise what is not in the cache yet."""
        self.prepare_collection()
        inputs = self.model.tokenized_inputs()
        if inputs.written(self.tokens):
            return
        rated = self.dataset.all
        wanted = {doc_id for query in rated for doc_id in query.doc_ids}
        texts = document_texts(self.collection, wanted)
        queries = query_texts(self.collection, "train")
        told = query_instructions(self.collection)
        inputs.write(self.network, RatedTexts(rated, queries, texts, told), self.tokens)

    def setup(self, stage: str | None = None) -> None:
        """Read the rated queries and map the token ids into memory, once."""
        if hasattr(self, "inputs"):
            return  # validation after training
        rated = self.dataset.all
        self.inputs = self.model.tokenized_inputs().open(rated, self.tokens)

    def train_dataloader(self) -> ResumableLoader[ScoredBatch]:
        """This rank's micro-batches of the steps' batches."""
        return ResumableLoader(
            self.dataset.train,
            self.batch_size,
            self.seed,
            lambda *drawn: self.ready(self.collate(*drawn)),
            Division.of(self.trainer),
            [query.group for query in self.dataset.train],
        )

    def val_dataloader(self) -> Any:
        """The held-out queries with all of their rated documents, each on one rank only."""
        if not self.dataset.validation:
            return []
        return ValidationLoader(self, Division.of(self.trainer))

    def calibration_batches(self) -> list[ScoredBatch]:
        """Some of the training queries, which scale or bias of a cosine are calibrated on."""
        rng, train = stream(self.seed, "scale"), self.dataset.train
        some = [train[i] for i in rng.permutation(len(train))[:CALIBRATING]]
        starts = range(0, len(some), self.batch_size)
        return [self.collate(some[i : i + self.batch_size], rng) for i in starts]

    def collate(
        self,
        rated: Sequence[RatedQuery],
        rng: np.random.Generator,
        micro_batch: MicroBatch | None = None,
    ) -> ScoredBatch:
        """One micro-batch of a step's batch; the documents of all of it are drawn, on every rank
        alike."""
        part = micro_batch or MicroBatch()
        drawn = []
        for query in rated:
            n = len(query.doc_ids)
            keep = min(n, self.docs_per_query or n)
            picks = rng.choice(n, size=keep, replace=False)
            if query.positive is not None and query.positive not in picks:
                picks[0] = query.positive
            drawn.append((query, np.sort(picks).tolist()))
        step = scored_batch(drawn, {}, [[0] * len(picks) for _, picks in drawn])
        # The longest first, dealt out in turn: micro-batches take about as long as one another.
        if part.count > 1:
            drawn.sort(key=lambda item: -self.inputs.length(*item))
        own = drawn[part.number :: part.count]
        # One without a query still goes through the model, as the other ranks wait for it.
        batch = self.batch_of(own or drawn[:1])
        return replace(batch, step=step, micro_batches=part.count if own else 0)

    def batch_of(self, drawn: Drawn) -> ScoredBatch:
        """Queries with the drawn of their documents."""
        return self.inputs.batch(drawn, self.chunking)

    def tokens_per_step(self) -> int:
        """Tokens of a step's batch, of the first queries for example."""
        batch = self.collate(self.dataset.train[: self.batch_size], stream(self.seed, "example"))
        return sum(chunks.tokens for chunks in batch.inputs.values())

    @property
    def steps_per_epoch(self) -> int:
        """Batches of `batch_size` queries, fewer where a group of them ends."""
        return steps_of([query.group for query in self.dataset.train], self.batch_size)

    def counts(self) -> dict[str, int]:
        """What is learned from."""
        train, validation = self.dataset.train, self.dataset.validation
        held_out = {"validation_queries": len(validation)} if validation else {}
        targets = sum(len(query.doc_ids) for query in train)
        return {"queries": len(train), "targets": targets, **held_out}


@dataclass(frozen=True)
class ValidationLoader:
    """Batches of held-out queries; large ones for embedding models, which read a document once for
    all queries of a batch. The scores are the same however many ranks there are."""

    data: ThurstoneDataModule
    division: Division

    @property
    def size(self) -> int:
        """Queries of a batch."""
        if not isinstance(self.data.model, BiEncoder):
            return self.data.batch_size
        each = -(-len(self.data.dataset.validation) // self.division.world_size)
        return max(self.data.batch_size, min(each, VALIDATED_AT_ONCE))

    @property
    def starts(self) -> range:
        """First query of each batch."""
        return range(0, len(self.data.dataset.validation), self.size)

    def __len__(self) -> int:
        """Batches of each rank."""
        return -(-len(self.starts) // self.division.world_size)

    def __iter__(self) -> Iterator[ScoredBatch]:
        rank, world = self.division.rank, self.division.world_size
        numbers = range(rank, len(self) * world, world)
        return ahead(partial(self.make, number) for number in numbers)

    def make(self, number: int) -> ScoredBatch:
        """One of the batches; a rank that has fewer than another reads one that counts for
        nothing."""
        counts = number < len(self.starts)
        start = self.starts[number if counts else 0]
        queries = self.data.dataset.validation[start : start + self.size]
        batch = self.data.batch_of([(query, range(len(query.doc_ids))) for query in queries])
        return self.data.ready(batch if counts else batch.uncounted())


def trainable_model(
    model: str | Path | TrainableModel | Mapping[str, Any],
    architecture: str = "cross_encoder",
    head: str | None = None,
    max_length: int | None = None,
) -> TrainableModel:
    """A component of this architecture, or itself; `UserError` where there is no such one."""
    if architecture not in ARCHITECTURES:
        raise UserError(f"architecture={architecture}: there are {', '.join(ARCHITECTURES)}")
    options = {"max_length": max_length, **({} if head is None else {"head": head})}
    if isinstance(model, str | Path):
        return ARCHITECTURES[architecture].of(model, **options)
    return TrainableModel.of(model, **options)
