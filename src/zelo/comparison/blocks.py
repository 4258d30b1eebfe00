"""Blocks of documents that are ordered at once, in place of pairs: which documents meet in one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from zelo.rating.comparisons import Wholes

PASSES = 20  # over all documents of a partition, to exchange one with another block's


def spread_blocks(n: int, size: int, times: int, rng: np.random.Generator) -> list[Wholes]:
    """Blocks of about `size` of the documents 0..n−1, every document in `times` of them.

    `times` partitions of all documents into blocks of at most `size`, as even as can be, so that
    pairs meet about equally often: in balanced incomplete block designs, which exist for few
    numbers, they meet exactly equally often. Two partitions connect all documents where a block
    has two at least. Documents of a block are in random order. A query of at most `size`
    documents has `times` blocks of all of them.
    """
    if size < 2:
        raise ValueError(f"a block needs two documents, size={size}")
    if n < 2:
        return []
    met = np.zeros((n, n), np.int64)  # how often two documents have met so far
    found: list[Wholes] = []
    for _ in range(times):
        block_of = partition(met, -(-n // size), rng)
        blocks = [np.flatnonzero(block_of == b) for b in range(block_of.max() + 1)]
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
