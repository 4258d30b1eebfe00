"""Comparison graphs over the documents 0..n−1 of one query.

A sampler returns undirected edges as an int64 array (edges, 2) with `i ≠ j`; documents are in the
order of the first stage, best first. All draw from the generator they are given and from nothing
else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from zelo.config import Component, option

Edges = NDArray[np.int64]


class Cycles(Component):
    """`sampler=cycles`: the union of random Hamiltonian cycles (METHOD, stage 4).

    Connected, nearly `2 · cycles`-regular, of low diameter, in O(n). An edge that two cycles
    share is kept once, so that no pair is paid for twice.
    """

    cycles: int = option(4, "cycles united; each document meets about twice as many", ge=1)

    def edges(self, n: int, rng: np.random.Generator) -> Edges:
        """Edges for `n` documents: at most `n · cycles`, never more than all pairs."""
        if n < 3:
            return all_pairs(n)
        rounds = [rng.permutation(n) for _ in range(self.cycles)]
        edges = np.concatenate([np.stack([cycle, np.roll(cycle, -1)], 1) for cycle in rounds])
        return distinct_edges(edges)


class Dense(Component):
    """`sampler=dense`: every pair, n(n − 1)/2 of them; what sparse graphs are measured against."""

    def edges(self, n: int, rng: np.random.Generator) -> Edges:
        """All pairs of `n` documents."""
        return all_pairs(n)


class TopPairs(Component):
    """`sampler=pairs`: few random pairs of the top k, k drawn with density ∝ 1/k (stage 2).

    What the ensemble is asked: one pair of many queries teaches more than many pairs of one.
    """

    pairs: int = option(1, "distinct pairs per query", ge=1)
    k_min: int = option(10, "smallest k", ge=2)
    k_max: int = option(100, "largest k", ge=2)

    def edges(self, n: int, rng: np.random.Generator) -> Edges:
        """`pairs` distinct edges, or all of them where `n` documents have fewer."""
        everything = all_pairs(n)
        if self.pairs >= len(everything):
            return everything
        chosen: dict[tuple[int, int], None] = {}
        while len(chosen) < self.pairs:
            # Widen k so that the pairs still wanted exist below it.
            floor = next(k for k in range(2, n + 1) if k * (k - 1) // 2 > len(chosen))
            low, high = max(self.k_min, floor), max(self.k_max, floor)
            # The inverse of the distribution function of the density 1/k on [low, high].
            k = int(low * (high / low) ** rng.random())
            i, j = rng.choice(min(k, n), size=2, replace=False)
            chosen[min(i, j), max(i, j)] = None
        return np.array(list(chosen), dtype=np.int64)


def all_pairs(n: int) -> Edges:
    """Every pair (i, j) with i < j of `n` documents."""
    return np.stack(np.triu_indices(n, k=1), axis=1).astype(np.int64)


def distinct_edges(edges: Edges) -> Edges:
    """Keep each undirected edge once, in the order of first occurrence."""
    ordered = np.sort(edges, axis=1)
    _, first = np.unique(ordered, axis=0, return_index=True)
    kept: Edges = edges[np.sort(first)].astype(np.int64)
    return kept
