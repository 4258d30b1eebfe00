from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf, expit
from scipy.stats import spearmanr

from zelo.comparison.crossquery import cross_pairs
from zelo.comparison.graphs import Cycles
from zelo.rating import Comparisons, fit, fit_query_biases, query_bias, targets

Q, N = 150, 40


def planted(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relevance (Q, N) of candidates in falling order, and how hard each query is."""
    rng = np.random.default_rng(seed)
    elo = -np.sort(-rng.normal(0, 0.7, (Q, N)), axis=1)
    elo -= elo.mean(1, keepdims=True)
    bias = rng.normal(0, 1.5, Q)
    return elo, bias - bias.mean(), np.arange(Q + 1) * N


def answered(
    elo: np.ndarray, bias: np.ndarray, first: np.ndarray, second: np.ndarray, seed: int
) -> np.ndarray:
    absolute = (elo + bias[:, None]).ravel()
    chance = (1 + erf(absolute[first] - absolute[second])) / 2
    return (np.random.default_rng(seed).random(len(first)) < chance).astype(float)


def said(gap: np.ndarray, seed: int) -> np.ndarray:
    """METHOD's noise model of an LLM judge at differences `gap` of hidden scores."""
    rng = np.random.default_rng(seed)
    noisy = expit(gap + rng.normal(0, 0.2, len(gap)))
    return 0.98 * noisy + 0.02 * rng.random(len(gap))


def test_targets_become_comparable_across_queries() -> None:
    """All from judgments: Elos within queries, biases across, pooled against the planted truth."""
    elo, bias, offsets = planted(0)
    rng = np.random.default_rng(1)
    edges = [Cycles(cycles=4).edges(N, rng) for _ in range(Q)]
    query = np.repeat(np.arange(Q), [len(e) for e in edges])
    i, j = np.concatenate(edges).T
    hidden = 2 * (elo + bias[:, None]).ravel()
    p = said(hidden[query * N + i] - hidden[query * N + j], 2)
    rated = fit(Comparisons(query, i, j, p)).elo
    first, second = cross_pairs(offsets, 4, rng)
    found = fit_query_biases(rated, offsets, first, second, said(hidden[first] - hidden[second], 3))
    assert found.converged
    assert found.components == 1
    without, with_bias = (
        spearmanr(targets("centred", "thurstone", rated, offsets, given), hidden)[0]
        for given in (None, found.bias)
    )
    assert without < 0.5
    assert with_bias > 0.95


def test_biases_are_recovered_within_their_errors() -> None:
    elo, bias, offsets = planted(4)
    first, second = cross_pairs(offsets, 8, np.random.default_rng(0), per_edge=2)
    p = answered(elo, bias, first, second, 5)
    found = fit_query_biases(elo.ravel(), offsets, first, second, p, prior=1 / 1.5**2)
    inside = np.abs(found.bias - bias) < 1.96 * found.stderr
    assert 0.9 < inside.mean() < 0.99
    assert found.bias.sum() == pytest.approx(0, abs=1e-8)


def test_errors_of_many_queries_are_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    elo, bias, offsets = planted(6)
    first, second = cross_pairs(offsets, 4, np.random.default_rng(0), per_edge=2)
    p = answered(elo, bias, first, second, 7)
    exact = fit_query_biases(elo.ravel(), offsets, first, second, p)
    monkeypatch.setattr(query_bias, "EXACT_UP_TO", 10)
    probed = fit_query_biases(elo.ravel(), offsets, first, second, p)
    np.testing.assert_array_equal(probed.bias, exact.bias)
    assert np.abs(probed.stderr / exact.stderr - 1).mean() < 0.1


def test_pairs_are_of_different_queries_at_equal_heights() -> None:
    sizes = np.array([10, 0, 40, 1, 100])
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    of = np.repeat(np.arange(5), sizes)
    first, second = cross_pairs(offsets, 2, np.random.default_rng(0), per_edge=50)
    assert (of[first] != of[second]).all()
    assert set(of[first]) | set(of[second]) == {0, 2, 3, 4}
    height = [(side - offsets[of[side]]) / sizes[of[side]] for side in (first, second)]
    both = (sizes[of[first]] > 1) & (sizes[of[second]] > 1)
    assert np.abs(height[0] - height[1])[both].max() < 0.1


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([0], [1], "row 0: both documents are of query 0"),
        ([0, 0], [2, 9], "row 1: second=9 is out of range for 4 documents"),
    ],
)
def test_bad_pairs_are_named(first: list[int], second: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_query_biases(np.zeros(4), np.array([0, 2, 4]), first, second, [0.5] * len(first))
