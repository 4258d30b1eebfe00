"""The DataModule of pairwise-judged batches, which a small judge learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from zelo.artifacts import read_table
from zelo.data.texts import document_texts, query_texts
from zelo.errors import UserError
from zelo.models.loading import without_weights
from zelo.models.pairwise_model import BasePairwiseModel, PairwiseModel
from zelo.models.tokens import TokenFile, write_tokens
from zelo.rating.preferences import Preferences, average
from zelo.training.batches import PairwiseBatch
from zelo.training.loader import Division, MicroBatch, ResumableLoader
from zelo.training.tokenized_data_module import TokenizedDataModule

TRIPLES = "triples.arrow"


@dataclass(frozen=True)
class JudgedTriple:
    """A comparison: its query, where its token ids are, the ensemble's preference for the first."""

    query_id: str
    row: int  # of (q, a, b); (q, b, a) is the next
    preference: float


class PairwiseDataModule(TokenizedDataModule):
    """Pairwise-judged batches: triples of texts with the ensemble's preference.

    `collection` is as in `ThurstoneDataModule`, `judgments` are folders with `judgments.parquet`
    (stage `judge`), one for each time that the ensemble was asked; `vote` (soft, sign) says how
    answers are averaged. `model` is a hub name, a folder or a pairwise model with its options.
    """

    def __init__(
        self,
        collection: str | Path,
        judgments: str | Path | Sequence[str | Path],
        model: str | Path | BasePairwiseModel | Mapping[str, Any],
        *,
        max_length: int | None = None,
        vote: str = "soft",
        batch_size: int = 32,
        max_tokens_per_forward: int | None = None,
        seed: int = 0,
        cache_dir: str | Path | None = None,
    ) -> None:
        super().__init__(collection, batch_size, max_tokens_per_forward, seed, cache_dir)
        folders = [judgments] if isinstance(judgments, str | Path) else list(judgments)
        own = isinstance(model, str | Path)
        kind = PairwiseModel if own else BasePairwiseModel
        self.model: BasePairwiseModel = kind.of(model, max_length=max_length)
        self.judgments, self.vote = [Path(folder) for folder in folders], vote
        self.keep_options(judgments=self.judgments, vote=vote)

    @cached_property
    def preferences(self) -> Preferences:
        """What the ensemble said, each pair once; `UserError` where it said nothing."""
        tables = [read_table(folder, "judgments") for folder in self.judgments]
        said = average(pa.concat_tables(tables), self.vote)
        if not said.query_ids:
            raise UserError(
                "distil: the ensemble answered no comparison; there is nothing to learn"
            )
        return said

    @cached_property
    def tokens(self) -> Path:
        """File of the token ids."""
        tables = [self.collection / f"{name}.parquet" for name in ("queries", "documents")]
        judged = [folder / "judgments.parquet" for folder in self.judgments]
        return self.cached_in(self.model, [*tables, *judged]) / TRIPLES

    def prepare_data(self) -> None:
        """Tokenise what is not in the cache yet: each triple in both orders."""
        self.prepare_collection()
        if self.tokens.is_file():
            return
        said = self.preferences
        queries = query_texts(self.collection)
        documents = document_texts(self.collection, {*said.doc_a, *said.doc_b})
        both = [
            (queries[q], documents[first], documents[second])
            for q, a, b in zip(said.query_ids, said.doc_a, said.doc_b, strict=True)
            for first, second in ((a, b), (b, a))
        ]
        network = without_weights(self.model.network)

        def encode(rows: range) -> list[Mapping[str, Any]]:
            return [network.encode(both[rows.start : rows.stop])]

        write_tokens(encode, len(both), self.tokens, network.tokenizer, "triples")

    def setup(self, stage: str | None = None) -> None:
        """Read the preferences and map the token ids into memory."""
        said = self.preferences
        self.judged = [
            JudgedTriple(query_id, 2 * i, p)
            for i, (query_id, p) in enumerate(zip(said.query_ids, said.p.tolist(), strict=True))
        ]
        self.triples = TokenFile(self.tokens)

    def train_dataloader(self) -> ResumableLoader[PairwiseBatch]:
        """This rank's micro-batches of batches of `batch_size` comparisons."""
        return ResumableLoader(
            self.judged,
            self.batch_size,
            self.seed,
            lambda *drawn: self.ready(self.collate(*drawn)),
            Division.of(self.trainer),
        )

    def collate(
        self, judged: Sequence[JudgedTriple], rng: np.random.Generator, micro_batch: MicroBatch
    ) -> PairwiseBatch:
        """Put comparisons together, each in an order drawn anew: the model learns no position."""
        swap = rng.random(len(judged)) < 0.5
        shown = [
            (one.query_id, one.row + int(s), 1 - one.preference if s else one.preference)
            for one, s in zip(judged, swap, strict=True)
        ]
        own = shown[micro_batch.number :: micro_batch.count]
        query_ids, rows, preference = zip(*(own or shown[:1]), strict=True)
        return PairwiseBatch(
            list(query_ids),
            self.triples.chunks(rows, self.chunking),
            torch.tensor(preference, dtype=torch.float32),
            loss_scale=micro_batch.count / len(shown) if own else 0.0,
        )

    def tokens_per_step(self) -> int:
        """Tokens of a step's batch, of the first comparisons for example."""
        rows = [one.row for one in self.judged[: self.batch_size]]
        return int(self.triples.lengths[rows].sum())

    @property
    def steps_per_epoch(self) -> int:
        """Batches of `batch_size` comparisons."""
        return -(-len(self.preferences.query_ids) // self.batch_size)

    def counts(self) -> dict[str, int]:
        """What is learned from."""
        return {"pairs": len(self.preferences.query_ids)}
