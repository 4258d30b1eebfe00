"""What every sampler has: the base class of whatever chooses the pairs that are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, InstanceOf

from zelo.config import Component
from zelo.rating.comparisons import Reals, Wholes

Edges = NDArray[np.int64]  # (m, 2): pairs of the documents 0..n−1 of one query


class BaseSampler(Component):
    """Chooses which pairs of a query's candidates are compared (`conf/sampler/`).

    A plain graph defines `edges` alone. A sampler that learns from the answers defines `max_rounds`
    and `next_edges` besides: whoever uses a sampler asks for `edges` first and then, with the
    answers, for `next_edges`, `max_rounds` times in all.
    """

    recorded: ClassVar[bool] = False  # whether pairs are given by `recorded_pairs`, not drawn

    in_blocks: ClassVar[bool] = False  # whether documents are shown in blocks, not two at a time

    @property
    def max_rounds(self) -> int:
        """How often pairs of one query are chosen, at most; the first time counts."""
        return 1

    def edges(self, n: int, rng: np.random.Generator) -> Edges:
        """Pairs (m, 2) of the first round among the documents 0..n−1, the best candidate first.

        Random numbers come from `rng` and from nothing else.
        """
        raise NotImplementedError

    def next_edges(
        self, n: int, edges: Edges, p: Reals, rounds_left: int, rng: np.random.Generator
    ) -> Edges:
        """Pairs of the next round, none where the query needs no more.

        `edges` (m, 2) are those of all rounds before and `p` (m,) what judges answered, P(first ≻
        second); NaN where no judge answered. `rounds_left` counts this round as well.
        """
        return edges[:0]

    def blocks(self, n: int, rng: np.random.Generator) -> list[Wholes]:
        """Documents of each block of the first round, in the order shown; of one `in_blocks`."""
        return []

    def next_blocks(
        self, n: int, edges: Edges, p: Reals, rounds_left: int, rng: np.random.Generator
    ) -> list[Wholes]:
        """The same of a later round; arguments as of `next_edges`."""
        return []

    def blocks_at_most(self, n: int) -> list[int]:
        """Sizes of the blocks of a query with `n` candidates, at most; none where pairs are
        drawn."""
        return []

    def recorded_pairs(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Query id → pairs of document ids, the one shown first in front; of a `recorded` one."""
        return {}

    def comparisons_at_most(self, n: int, queries: int) -> int:
        """How many pairs of `queries` queries with `n` candidates each are compared, at most."""
        if self.max_rounds > 1:
            return queries * (n * (n - 1) // 2)
        return queries * len(self.edges(n, np.random.default_rng(0)))


def draws_pairs(sampler: BaseSampler) -> BaseSampler:
    """The sampler; `ValueError` where its pairs are recorded ones."""
    if sampler.recorded:
        raise ValueError(
            "its pairs are those of a file, and here they are drawn among candidates: choose one "
            "that draws them, sampler=cycles or dense for example"
        )
    return sampler


def draws_at_once(sampler: BaseSampler) -> BaseSampler:
    """The sampler; `ValueError` where it works in rounds or does not draw."""
    if sampler.max_rounds > 1:
        raise ValueError(
            "it chooses pairs from the answers, in rounds, and all are asked at once here: choose "
            "one that does not, sampler=cycles or dense for example"
        )
    return draws_pairs(sampler)


# Types of options: any sampler, one that draws its pairs, one that draws all of them at once.
Sampler = InstanceOf[BaseSampler]
DrawingSampler = Annotated[Sampler, AfterValidator(draws_pairs)]
OneRoundSampler = Annotated[Sampler, AfterValidator(draws_at_once)]
