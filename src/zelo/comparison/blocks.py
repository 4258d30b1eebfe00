"""Blocks of documents that are ordered at once, in place of pairs: which documents meet in one.

A judge that orders lists is shown each block as a whole. One that compares two is asked about a
cycle through each block: first with second, second with third, ..., last with first. What the
orders say of the same pairs is what reports and other readers of comparisons see of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from zelo.comparison.adaptive import estimate_query
from zelo.comparison.sampler import BaseSampler, Edges
from zelo.config import option
from zelo.rating.comparisons import Reals, Wholes

PASSES = 20  # over all documents of a partition, to exchange one with another block's


@dataclass(frozen=True)
class Block:
    """Documents of a query that are shown together, in this order."""

    query_id: str
    number: int  # among the blocks of its query, this round
    doc_ids: Sequence[str]


class Blocks(BaseSampler):
    """Every candidate in a few blocks that are ordered at once, then windows over the top."""

    in_blocks: ClassVar[bool] = True
    size: int = option(10, "documents of a block", ge=3, le=150)
    times: float = option(
        2.0, "blocks that a document is in, on average: 1.5 has half of them in two", ge=1
    )
    window_rounds: int = option(
        0, "rounds after that of overlapping windows over the best so far", ge=0
    )
    top: int = option(20, "documents that windows go over", ge=2)
    step: int = option(5, "documents from one window to the next", ge=1)
    prior: float = option(0.05, "precision of the Gaussian prior on an Elo", gt=0)

    @model_validator(mode="after")
    def _windows_overlap(self) -> Blocks:
        if self.window_rounds and self.step > self.size:
            raise ValueError(
                f"step={self.step}: windows of size={self.size} would leave documents out"
            )
        return self

    @property
    def max_rounds(self) -> int:
        """One, and those of windows."""
        return 1 + self.window_rounds

    def blocks(self, n: int, rng: np.random.Generator) -> list[Wholes]:
        """Blocks of the first round, see `spread_blocks`."""
        return spread_blocks(n, self.size, self.times, rng)

    def next_blocks(
        self, n: int, edges: Edges, p: Reals, rounds_left: int, rng: np.random.Generator
    ) -> list[Wholes]:
        """Windows over the best by the Elos so far, each in random order."""
        elo = estimate_query(n, edges, p, "bradley_terry", self.prior).elo
        best = np.argsort(-elo, kind="stable")[: self.top]
        return [rng.permutation(block) for block in windows(best.tolist(), self.size, self.step)]

    def edges(self, n: int, rng: np.random.Generator) -> Edges:
        """A cycle through each block, for judges that compare two."""
        return cycles_through(self.blocks(n, rng))

    def next_edges(
        self, n: int, edges: Edges, p: Reals, rounds_left: int, rng: np.random.Generator
    ) -> Edges:
        """The same of a round of windows."""
        return cycles_through(self.next_blocks(n, edges, p, rounds_left, rng))

    def comparisons_at_most(self, n: int, queries: int) -> int:
        """Pairs of all rounds together: as many as blocks have documents."""
        return queries * sum(self.blocks_at_most(n))

    def blocks_at_most(self, n: int) -> list[int]:
        """Sizes of the blocks of all rounds."""
        rng = np.random.default_rng(0)
        sizes = [len(block) for block in self.blocks(n, rng)]
        if sizes and self.window_rounds:
            of_top = windows(range(min(self.top, n)), self.size, self.step)
            sizes += self.window_rounds * [len(window) for window in of_top]
        return sizes


def cycles_through(blocks: Sequence[Wholes]) -> Edges:
    """Pairs (m, 2) of neighbours in each block, the last and the first included; each pair once."""
    pairs = {
        (min(a, b), max(a, b)): None
        for block in (block.tolist() for block in blocks)
        for a, b in zip(block, [*block[1:], block[0]], strict=True)
        if a != b
    }
    return np.array(list(pairs), np.int64).reshape(-1, 2)


def spread_blocks(n: int, size: int, times: float, rng: np.random.Generator) -> list[Wholes]:
    """Blocks of about `size` of the documents 0..n−1, every document in `times` of them.

    `times` partitions of all documents into blocks of at most `size`, as even as can be, so that
    pairs meet about equally often: in balanced incomplete block designs, which exist for few
    numbers, they meet exactly equally often. What `times` has beyond a whole number is a partition
    of that share of the documents, as many from each block as from others. Two partitions connect
    all documents where a block has two at least. Documents of a block are in random order. A query
    of at most `size` documents has blocks of all of them, `times` rounded up.
    """
    if size < 3:  # of an odd number of documents one would be left alone
        raise ValueError(f"a block needs three documents, size={size}")
    if n < 2:
        return []
    met = np.zeros((n, n), np.int64)  # how often two documents have met so far
    found: list[Wholes] = []
    for left in np.arange(times, 0, -1.0):
        shown = np.arange(n)
        if left < 1 and n > size:
            in_turn = [block[i] for i in range(size) for block in found if i < len(block)]
            shown = np.sort(list(dict.fromkeys(in_turn))[: max(round(left * n), 2)])
        block_of = partition(met[np.ix_(shown, shown)], -(-len(shown) // size), rng)
        blocks = [shown[block_of == b] for b in range(block_of.max() + 1)]
        for block in blocks:
            met[np.ix_(block, block)] += 1
        found += [rng.permutation(block) for block in blocks]
    return found


def partition(met: NDArray[np.int64], blocks: int, rng: np.random.Generator) -> Wholes:
    """Block (n,) of each document in an even partition in which few meet that have `met` (n, n).

    From a random partition, documents of two blocks change places as long as that lowers the sum
    over pairs in a block of how often they met before, by the square: met twice weighs more than
    two that met once.
    """
    n = len(met)
    cost = met**2
    np.fill_diagonal(cost, 0)
    block_of = rng.permutation(np.arange(n) % blocks)
    if blocks == 1 or not cost.any():
        return block_of
    inside = np.eye(blocks, dtype=np.int64)[block_of]  # (n, blocks)
    pull = cost @ inside  # (n, blocks): what a document would cost in each block
    for _ in range(PASSES):
        improved = False
        for a in rng.permutation(n):
            # What an exchange of `a` with each other document changes.
            own = block_of[a]
            change = (
                pull[a, block_of] - pull[a, own]
                + pull[:, own] - pull[np.arange(n), block_of]
                - 2 * cost[a]
            )  # fmt: skip
            change[block_of == own] = 0
            b = int(change.argmin())
            if change[b] >= 0:
                continue
            other = block_of[b]
            pull[:, own] += cost[:, b] - cost[:, a]
            pull[:, other] += cost[:, a] - cost[:, b]
            block_of[a], block_of[b] = other, own
            improved = True
        if not improved:
            break
    return block_of


def windows(order: Sequence[int], size: int, step: int) -> list[Wholes]:
    """Overlapping blocks of neighbours in an order, from the top: `size` documents each, `step`
    further on from one to the next, the last one at the end."""
    if not 0 < step <= size or size < 2:
        raise ValueError(f"windows of {size} documents cannot be {step} apart")
    documents = np.asarray(order, np.int64)
    last = max(len(documents) - size, 0)
    starts = dict.fromkeys([*range(0, last, step), last])
    return [documents[start : start + size] for start in starts]
