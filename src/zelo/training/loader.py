"""A step's batches in an order of their own, shared out between ranks and accumulated parts.

A step's batch depends on the seed, the epoch and its number alone. A loader remembers how many
steps it has given, so that training resumed from a checkpoint sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from zelo.distributed.ranks import this_process
from zelo.seeding import stream

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Part:
    """Which part of a step's batch: `number` of `of`, over devices and accumulated steps."""

    number: int = 0
    of: int = 1


WHOLE = Part()


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
        rank, world, _ = this_process()
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
