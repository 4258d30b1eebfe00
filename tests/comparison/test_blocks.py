"""Which documents meet in a block."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from zelo.comparison.blocks import Blocks, cycles_through, spread_blocks, windows


def met(n: int, blocks: list[np.ndarray]) -> np.ndarray:
    """How often each pair of documents is in one block (pairs,)."""
    counts = np.zeros((n, n), int)
    for block in blocks:
        counts[np.ix_(block, block)] += 1
    return counts[np.triu_indices(n, 1)]


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize(("n", "size"), [(2, 10), (10, 10), (11, 10), (37, 7), (100, 20)])
def test_every_document_is_in_as_many_blocks(n: int, size: int, times: int) -> None:
    blocks = spread_blocks(n, size, times, np.random.default_rng(0))
    assert np.bincount(np.concatenate(blocks), minlength=n).tolist() == [times] * n
    sizes = [len(block) for block in blocks]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert all(len(set(block.tolist())) == len(block) for block in blocks)
    if times > 1:
        graph = np.zeros((n, n), int)
        for block in blocks:
            graph[np.ix_(block, block)] = 1
        assert connected_components(graph)[0] == 1
    again = spread_blocks(n, size, times, np.random.default_rng(0))
    assert all((a == b).all() for a, b in zip(blocks, again, strict=True))


def test_pairs_meet_about_equally_often() -> None:
    rng = np.random.default_rng(0)
    assert (met(9, spread_blocks(9, 3, 4, rng)) == 1).all()  # the affine plane of order 3
    for n, size, times in ((100, 10, 5), (48, 10, 4), (25, 5, 6)):
        even = met(n, spread_blocks(n, size, times, rng))
        number = -(-n // size)
        drawn = [b for _ in range(times) for b in np.array_split(rng.permutation(n), number)]
        by_chance = met(n, drawn)
        assert even.sum() == by_chance.sum()
        assert even.var() < 0.8 * by_chance.var()
        assert even.max() <= 2


def test_one_document_meets_nobody() -> None:
    assert spread_blocks(1, 5, 3, np.random.default_rng(0)) == []
    with pytest.raises(ValueError, match="size=1"):
        spread_blocks(4, 1, 3, np.random.default_rng(0))


def test_windows_go_to_the_end_and_overlap() -> None:
    order = [9, 3, 5, 1, 0, 2, 4]
    found = [window.tolist() for window in windows(order, 4, 2)]
    assert found == [[9, 3, 5, 1], [5, 1, 0, 2], [1, 0, 2, 4]]
    assert [window.tolist() for window in windows(order, 9, 5)] == [order]
    for size, step in ((4, 0), (4, 5), (1, 1)):
        with pytest.raises(ValueError, match="windows of"):
            windows(order, size, step)


@pytest.mark.parametrize(("times", "size"), [(1.5, 10), (1.2, 20), (2.5, 7)])
def test_half_a_time_is_half_of_the_documents(times: float, size: int) -> None:
    """As many of each block, so that the last blocks connect all others."""
    blocks = spread_blocks(100, size, times, np.random.default_rng(0))
    counts = np.bincount(np.concatenate(blocks), minlength=100)
    assert counts.min() == int(times)
    assert counts.max() == int(times) + 1
    assert counts.sum() == round(100 * times)
    assert max(map(len, blocks)) <= size
    again = set(np.flatnonzero(counts > counts.min()).tolist())
    first = blocks[: -(-100 // size)]
    of_each = [len(again & set(block.tolist())) for block in first]
    assert max(of_each) - min(of_each) <= (1 if times < 2 else size)
    graph = np.zeros((100, 100), int)
    for block in blocks:
        graph[np.ix_(block, block)] = 1
    assert connected_components(graph)[0] == 1


def test_windows_go_over_the_best_so_far() -> None:
    sampler = Blocks(size=4, times=1, window_rounds=2, top=8, step=2)
    assert sampler.max_rounds == 3
    rng = np.random.default_rng(0)
    edges = np.array([[i, j] for i in range(20) for j in range(i + 1, 20)])
    p = np.ones(len(edges))  # document 0 is the best, 19 the worst
    blocks = sampler.next_blocks(20, edges, p, 2, rng)
    assert [sorted(block.tolist()) for block in blocks] == [
        [0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]
    ]  # fmt: skip
    assert sampler.blocks_at_most(20) == [4] * 5 + 2 * [4] * 3
    assert len(sampler.next_edges(20, edges, p, 2, rng)) <= 12


def test_pairs_of_a_block_are_neighbours_in_a_circle() -> None:
    pairs = cycles_through([np.array([3, 1, 2]), np.array([4, 0]), np.array([1, 3, 5, 0])])
    assert pairs.tolist() == [[1, 3], [1, 2], [2, 3], [0, 4], [3, 5], [0, 5], [0, 1]]


def test_windows_may_not_leave_documents_out() -> None:
    with pytest.raises(ValueError, match="would leave documents out"):
        Blocks(size=4, step=5, window_rounds=1)
    assert Blocks(size=4, step=5).max_rounds == 1
