"""Comparison graphs over the documents 0..n−1 of one query, all pairs of which are asked at once.

Edges are undirected: an int64 array (edges, 2) with `i ≠ j`; documents are in the order of the
first stage, best first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zelo.comparison.sampler import BaseSampler, Edges
from zelo.config import option


class Cycles(BaseSampler):
    """`sampler=cycles`: the union of random Hamiltonian cycles (METHOD, stage 4).

    Connected, nearly `2 · cycles`-regular, of low diameter, in O(n). An edge that two cycles
    share is kept once, so that no pair is paid for twice.
    """

    cycles: int = option(4, "cycles united; each document meets about twice as many", ge=1)

    def edges(self, n: int, rng: np.random.Generator) -> Edges:
        """Edges for `n` documents: at most `n · cycles`, never more than all pairs."""
        if n < 3:
            return all_pairs(n)
        cycles = [rng.permutation(n) for _ in range(self.cycles)]
        edges = np.concatenate([np.stack([cycle, np.roll(cycle, -1)], 1) for cycle in cycles])
        return distinct_edges(edges)


class Regular(BaseSampler):
    """`sampler=regular`: a random graph in which every document has the same degree.

    Uniform among the simple k-regular graphs of `n` documents, drawn again until it is connected,
    which takes a degree of 3; degree 2 is one cycle. Where `n · degree` is odd there is no such
    graph, and the degree is one more.
    """

    degree: int = option(8, "comparisons of each document", ge=2)

    def edges(self, n: int, rng: np.random.Generator) -> Edges:
        """`n · degree / 2` edges, or all pairs where there are not as many."""
        import networkx

        degree = self.degree + (n * self.degree) % 2
        if degree >= n - 1:
            return all_pairs(n)
        if degree == 2:
            return Cycles(cycles=1).edges(n, rng)
        rest = n - 1 - degree
        while True:
            # Of a graph of almost all pairs the few that are left out are quicker to draw.
            drawn = min(degree, rest)
            graph = networkx.random_regular_graph(drawn, n, seed=int(rng.integers(2**63)))
            if drawn < degree:
                graph = networkx.complement(graph)
            if networkx.is_connected(graph):
                return np.array(graph.edges, dtype=np.int64)


class RandomPairs(BaseSampler):
    """`sampler=random`: distinct pairs drawn uniformly; documents may stay apart."""

    comparisons: int = option(400, "pairs per query", ge=1)

    def edges(self, n: int, rng: np.random.Generator) -> Edges:
        """`comparisons` distinct edges, or all of them where `n` documents have fewer."""
        everything = all_pairs(n)
        number = min(self.comparisons, len(everything))
        return everything[rng.choice(len(everything), number, replace=False)]


class Bipartite(BaseSampler):
    """`sampler=bipartite`: some random documents are each compared with all of the others.

    The complete bipartite graph `K_{anchors, n − anchors}`: of diameter 2, but most documents are
    never compared with one another.
    """

    anchors: int = option(4, "documents that all others are compared with", ge=1)

    def edges(self, n: int, rng: np.random.Generator) -> Edges:
        """`anchors · (n − anchors)` edges, at most half of the documents being anchors."""
        order = rng.permutation(n)
        anchors = min(self.anchors, n // 2)
        left, right = np.meshgrid(order[:anchors], order[anchors:], indexing="ij")
        return np.stack([left.ravel(), right.ravel()], axis=1).astype(np.int64)


class AllPairs(BaseSampler):
    """`sampler=dense`: every pair, n(n − 1)/2 of them; what sparse graphs are measured against."""

    def edges(self, n: int, rng: np.random.Generator) -> Edges:
        """All pairs of `n` documents."""
        return all_pairs(n)


class TopPairs(BaseSampler):
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
        if 2 * self.pairs > len(everything):  # most of them: k would hardly matter
            return everything[rng.choice(len(everything), self.pairs, replace=False)]
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


@dataclass(frozen=True)
class Statistics:
    """What a comparison graph is like; what makes it good for rating is METHOD, stage 4."""

    edges: int
    degree_min: int
    degree_mean: float
    degree_max: int
    components: int
    diameter: int | None  # longest of the shortest paths; None where the graph is not connected
    algebraic_connectivity: float  # second smallest eigenvalue of the Laplacian; 0: not connected


def statistics(n: int, edges: Edges) -> Statistics:
    """Statistics of the graph of `edges` (m, 2) over `n` ≥ 1 documents; repeats count once."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components, laplacian, shortest_path

    edges = distinct_edges(edges)
    half = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (n, n))
    adjacency = (half + half.T).tocsr()
    degree = np.asarray(adjacency.sum(1)).ravel().astype(int)
    components = int(connected_components(adjacency, directed=False)[0])
    spectrum = np.linalg.eigvalsh(laplacian(adjacency).toarray())
    paths = shortest_path(adjacency, unweighted=True) if components == 1 else None
    return Statistics(
        edges=len(edges),
        degree_min=int(degree.min()),
        degree_mean=float(degree.mean()),
        degree_max=int(degree.max()),
        components=components,
        diameter=None if paths is None else int(paths.max()),
        algebraic_connectivity=float(spectrum[1]) if components == 1 and n > 1 else 0.0,
    )


def all_pairs(n: int) -> Edges:
    """Every pair (i, j) with i < j of `n` documents."""
    return np.stack(np.triu_indices(n, k=1), axis=1).astype(np.int64)


def distinct_edges(edges: Edges) -> Edges:
    """Keep each undirected edge once, in the order of first occurrence."""
    ordered = np.sort(edges, axis=1)
    _, first = np.unique(ordered, axis=0, return_index=True)
    kept: Edges = edges[np.sort(first)].astype(np.int64)
    return kept
