"""A step's batches in an order of their own, cut into micro-batches for ranks and accumulation.

A step's batch depends on the seed, the epoch and its number alone. A loader remembers how many
steps it has given, so that training resumed from a checkpoint sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from zelo.seeding import stream

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class MicroBatch:
    """Which micro-batch of a step's batch: `number` of `count`, over devices and accumulation."""

    number: int = 0
    count: int = 1


@dataclass(frozen=True)
class Division:
    """How the steps of a training are divided: between ranks, and into accumulated parts."""

    rank: int = 0
    world_size: int = 1
    accumulate_grad_batches: int = 1

    @classmethod
    def of(cls, trainer: Any) -> Division:
        """As a `lightning.Trainer` divides them; None: not at all."""
        if trainer is None:
            return cls()
        return cls(trainer.global_rank, trainer.world_size, trainer.accumulate_grad_batches)


class ResumableLoader(Generic[Batch]):
    """Epochs of batches made from shuffled items; its state is how far it is."""

    def __init__(
        self,
        items: Sequence[Any],
        batch_size: int,
        seed: int,
        collate: Callable[[list[Any], np.random.Generator, MicroBatch], Batch],
        division: Division | None = None,
    ) -> None:
        self.items, self.batch_size, self.seed, self.collate = items, batch_size, seed, collate
        self.division = division or Division()
        self.epoch = self.given = 0

    def __len__(self) -> int:
        """Micro-batches of this rank per epoch."""
        return self.steps * self.division.accumulate_grad_batches

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return -(-len(self.items) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if self.given >= self.steps:
            self.epoch, self.given = self.epoch + 1, 0
        rank, world = self.division.rank, self.division.world_size
        parts = self.division.accumulate_grad_batches
        order = stream(self.seed, "epoch", str(self.epoch)).permutation(len(self.items))
        for number in range(self.given, self.steps):
            start = number * self.batch_size
            chosen = [self.items[i] for i in order[start : start + self.batch_size]]
            for part in range(parts):
                # A checkpoint between two parts is one of the step before: their gradients are not
                # kept.
                self.given = number + (part + 1 == parts)
                yield self.collate(
                    chosen,
                    stream(self.seed, str(self.epoch), str(number)),
                    MicroBatch(part * world + rank, parts * world),
                )

    def state_dict(self) -> dict[str, int]:
        """How far it is."""
        return {"epoch": self.epoch, "given": self.given}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from where another was."""
        self.epoch, self.given = state["epoch"], state["given"]
