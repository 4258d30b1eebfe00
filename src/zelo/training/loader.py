"""A step's batches in an order of their own, cut into micro-batches for ranks and accumulation.

A step's batch depends on the seed, the epoch and its number alone. A loader remembers how many
steps it has given, so that training resumed from a checkpoint sees what it would have seen. While a
step is taken a thread makes the next batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from zelo.seeding import stream

Batch = TypeVar("Batch")
Made = TypeVar("Made")
AHEAD = 2  # batches that are made before a step asks for them


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


def steps_of(groups: Sequence[int] | NDArray[np.int64], batch_size: int) -> int:
    """Batches of an epoch, none of which has items of two groups."""
    counts = np.unique(np.asarray(groups), return_counts=True)[1]
    return int((-(-counts // batch_size)).sum())


class ResumableLoader(Generic[Batch]):
    """Epochs of batches made from shuffled items; its state is how far it is."""

    def __init__(
        self,
        items: Sequence[Any],
        batch_size: int,
        seed: int,
        collate: Callable[[list[Any], np.random.Generator, MicroBatch], Batch],
        division: Division | None = None,
        groups: Sequence[int] | None = None,
    ) -> None:
        self.items, self.batch_size, self.seed, self.collate = items, batch_size, seed, collate
        self.division = division or Division()
        self.groups = np.zeros(len(items), np.int64) if groups is None else np.asarray(groups)
        self.epoch = self.given = 0

    def __len__(self) -> int:
        """Micro-batches of this rank per epoch."""
        return self.steps * self.division.accumulate_grad_batches

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return steps_of(self.groups, self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        if self.given >= self.steps:
            self.epoch, self.given = self.epoch + 1, 0
        # What is made ahead is not given yet: only what a step gets counts.
        for given, batch in ahead(self.micro_batches(self.epoch, self.given)):
            self.given = given
            yield batch

    def micro_batches(self, epoch: int, given: int) -> Iterator[Callable[[], tuple[int, Batch]]]:
        """What makes this rank's micro-batches of the steps of an epoch after the first `given`,
        each with how many steps have been given with it."""
        rank, world = self.division.rank, self.division.world_size
        parts = self.division.accumulate_grad_batches
        batches = self.batches(stream(self.seed, "epoch", str(epoch)))
        for number in range(given, self.steps):
            chosen = [self.items[i] for i in batches[number]]
            for part in range(parts):
                # A checkpoint between two parts is one of the step before: their gradients are not
                # kept.
                whole = number + (part + 1 == parts)
                micro_batch = MicroBatch(part * world + rank, parts * world)
                yield partial(self.make, epoch, number, chosen, micro_batch, whole)

    def batches(self, rng: np.random.Generator) -> list[NDArray[np.int64]]:
        """Which items each step of an epoch gets; none gets items of two groups."""
        order = rng.permutation(len(self.items))
        order = order[np.argsort(self.groups[order], kind="stable")]
        ends = np.flatnonzero(np.diff(self.groups[order])) + 1
        found = [
            items[start : start + self.batch_size]
            for items in np.split(order, ends)
            for start in range(0, len(items), self.batch_size)
        ]
        return [found[i] for i in rng.permutation(len(found))] if len(ends) else found

    def make(
        self, epoch: int, number: int, chosen: list[Any], micro_batch: MicroBatch, given: int
    ) -> tuple[int, Batch]:
        """One of `micro_batches`."""
        return given, self.collate(chosen, stream(self.seed, str(epoch), str(number)), micro_batch)

    def state_dict(self) -> dict[str, int]:
        """How far it is."""
        return {"epoch": self.epoch, "given": self.given}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from where another was."""
        self.epoch, self.given = state["epoch"], state["given"]


def ahead(makers: Iterable[Callable[[], Made]]) -> Iterator[Made]:
    """What `makers` make, in their order; a thread makes the next ones meanwhile."""
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as thread:
        try:
            for make in makers:
                waiting.append(thread.submit(make))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # nobody asks for what is left
            thread.shutdown(cancel_futures=True)
