"""Which documents of different queries to compare (METHOD, stage 6)."""

from __future__ import annotations

import numpy as np

from zelo.comparison.graphs import Cycles
from zelo.rating.comparisons import Wholes


def cross_pairs(
    offsets: Wholes, cycles: int, rng: np.random.Generator, per_edge: int = 1
) -> tuple[Wholes, Wholes]:
    """Which documents of different queries to compare: two arrays (M,) of indices among all.

    Queries are joined by random Hamiltonian cycles, so that their graph is connected, nearly
    `2 · cycles`-regular and of low diameter. For an edge, `per_edge` documents are drawn from each
    of its two queries, at the same random height of both: documents are in the order of their
    Elos or of the first stage. Before anything is known, equal heights are what is closest to equal
    relevance, where an answer says most.

    `offsets` (Q + 1,) says where each query's documents begin; queries without any are left out.
    """
    sizes = np.diff(offsets)
    queries = np.flatnonzero(sizes)
    edges = np.repeat(queries[Cycles(cycles=cycles).edges(len(queries), rng)], per_edge, axis=0)
    height = rng.random(len(edges))
    first, second = (
        offsets[edges[:, side]] + (height * sizes[edges[:, side]]).astype(np.int64)
        for side in (0, 1)
    )
    return first, second
