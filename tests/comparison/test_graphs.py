from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from zelo.comparison.compare import in_random_order
from zelo.comparison.graphs import (
    AllPairs,
    Bipartite,
    Cycles,
    RandomPairs,
    Regular,
    TopPairs,
    statistics,
)
from zelo.comparison.sampler import Edges

SEEDS = st.integers(0, 2**32)


def check_simple(edges: Edges, n: int) -> None:
    assert edges.shape == (len(edges), 2)
    assert edges.dtype == np.int64
    assert ((edges >= 0) & (edges < n)).all()
    assert (edges[:, 0] != edges[:, 1]).all()
    assert len({tuple(sorted(edge)) for edge in edges.tolist()}) == len(edges)


@given(n=st.integers(0, 60), cycles=st.integers(1, 8), seed=SEEDS)
def test_cycles_are_connected_and_nearly_regular(n: int, cycles: int, seed: int) -> None:
    edges = Cycles(cycles=cycles).edges(n, np.random.default_rng(seed))
    check_simple(edges, n)
    assert len(edges) <= min(n * cycles, n * (n - 1) // 2)
    if n > 1:
        graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (n, n))
        assert connected_components(graph)[0] == 1
        degree = np.bincount(edges.ravel(), minlength=n)
        assert degree.max() <= 2 * cycles
        assert degree.min() >= min(2, n - 1)


def test_four_cycles_of_a_hundred_are_the_papers_400_comparisons() -> None:
    counts = [len(Cycles(cycles=4).edges(100, np.random.default_rng(s))) for s in range(200)]
    assert max(counts) <= 400
    # Two cycles share an edge with probability 2/99 each: 6 pairs of cycles × 100 · 2/99 expected.
    assert np.mean(counts) == pytest.approx(400 - 12.1, abs=1.0)


@pytest.mark.parametrize(("n", "expected"), [(0, 0), (1, 0), (2, 1), (7, 21)])
def test_dense_has_every_pair(n: int, expected: int) -> None:
    edges = AllPairs().edges(n, np.random.default_rng(0))
    check_simple(edges, n)
    assert len(edges) == expected


@given(n=st.integers(0, 120), pairs=st.integers(1, 30), seed=SEEDS)
def test_top_pairs_are_distinct_and_as_many_as_asked(n: int, pairs: int, seed: int) -> None:
    edges = TopPairs(pairs=pairs).edges(n, np.random.default_rng(seed))
    check_simple(edges, n)
    assert len(edges) == min(pairs, n * (n - 1) // 2)


def test_the_top_k_has_density_one_over_k() -> None:
    rng = np.random.default_rng(0)
    sampler = TopPairs(pairs=1, k_min=10, k_max=100)
    deepest = np.array([sampler.edges(100, rng).max() for _ in range(20_000)])
    # P(deepest < m) = E[min(m(m−1)/k(k−1), 1)] with k = floor of a variable of density ∝ 1/k.
    edges = np.arange(10, 101)
    weight = np.log(edges[1:] / edges[:-1]) / np.log(10)
    for m in (10, 20, 40, 80):
        k = edges[:-1]
        expected = (weight * np.minimum(m * (m - 1) / (k * (k - 1)), 1)).sum()
        assert (deepest < m).mean() == pytest.approx(expected, abs=0.015)


def test_either_document_is_shown_first_half_the_time() -> None:
    edges = AllPairs().edges(200, np.random.default_rng(0))
    shown = in_random_order(edges, np.random.default_rng(1))
    assert Counter(map(frozenset, shown.tolist())) == Counter(map(frozenset, edges.tolist()))
    assert (shown[:, 0] > shown[:, 1]).mean() == pytest.approx(0.5, abs=0.02)


@given(n=st.integers(0, 40), degree=st.integers(2, 12), seed=SEEDS)
def test_regular_graphs_are_regular_and_connected(n: int, degree: int, seed: int) -> None:
    edges = Regular(degree=degree).edges(n, np.random.default_rng(seed))
    check_simple(edges, n)
    if n > 1:
        found = statistics(n, edges)
        expected = min(degree + (n * degree) % 2, n - 1)
        assert found.degree_min == found.degree_max == expected
        assert found.components == 1


@given(n=st.integers(0, 40), comparisons=st.integers(1, 900), seed=SEEDS)
def test_random_pairs_are_distinct_and_as_many_as_asked(
    n: int, comparisons: int, seed: int
) -> None:
    edges = RandomPairs(comparisons=comparisons).edges(n, np.random.default_rng(seed))
    check_simple(edges, n)
    assert len(edges) == min(comparisons, n * (n - 1) // 2)


@given(n=st.integers(0, 40), anchors=st.integers(1, 60), seed=SEEDS)
def test_bipartite_graphs_compare_anchors_with_all_others(n: int, anchors: int, seed: int) -> None:
    edges = Bipartite(anchors=anchors).edges(n, np.random.default_rng(seed))
    check_simple(edges, n)
    left = min(anchors, n // 2)
    assert len(edges) == left * (n - left)
    if n > 1:
        found = statistics(n, edges)
        assert found.components == 1
        assert found.diameter == min(2, n - 1)
        assert len(set(edges[:, 0])) == left


def test_statistics_are_the_textbooks() -> None:
    n = 12
    cycle = np.stack([np.arange(n), np.roll(np.arange(n), -1)], 1)
    found = statistics(n, cycle)
    assert (found.edges, found.degree_min, found.degree_max, found.diameter) == (n, 2, 2, 6)
    assert found.algebraic_connectivity == pytest.approx(2 - 2 * np.cos(2 * np.pi / n))
    complete = statistics(n, AllPairs().edges(n, np.random.default_rng(0)))
    assert complete.algebraic_connectivity == pytest.approx(n)
    assert complete.diameter == 1
    apart = statistics(4, np.array([[0, 1], [1, 0], [2, 3]]))
    assert (apart.edges, apart.components, apart.diameter) == (2, 2, None)
    assert apart.algebraic_connectivity == 0
    assert statistics(1, np.zeros((0, 2), np.int64)).components == 1


def test_random_regular_graphs_have_low_diameter_and_high_connectivity() -> None:
    """What METHOD asks of a graph: the union of cycles is as good as a random regular graph."""
    rng = np.random.default_rng(0)
    for sampler in (Cycles(cycles=4), Regular(degree=8)):
        found = [statistics(100, sampler.edges(100, rng)) for _ in range(20)]
        assert max(s.diameter or 99 for s in found) <= 5
        assert np.mean([s.algebraic_connectivity for s in found]) > 2
