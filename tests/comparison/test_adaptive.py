from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from zelo.comparison.adaptive import (
    AdaptiveSampler,
    Closest,
    Informative,
    QueryEstimate,
    chance_of_top,
    estimate_query,
    expected_information,
)
from zelo.comparison.graphs import Cycles, all_pairs
from zelo.comparison.sampler import Edges
from zelo.rating import Comparisons, covariance, fit

SAMPLERS: list[type[AdaptiveSampler]] = [Closest, Informative]


def noisy(s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a judge says of each pair of documents with hidden scores `s` (METHOD's noise model)."""
    n = len(s)
    said = 0.98 * expit(s[:, None] - s + rng.normal(0, 0.2, (n, n))) + 0.02 * rng.random((n, n))
    upper = np.triu(said, 1)
    return upper + np.tril(1 - upper.T, -1)


def ask_all(sampler: AdaptiveSampler, said: np.ndarray, seed: int) -> list[Edges]:
    """Every round, until the sampler wants no more."""
    n, rng = len(said), np.random.default_rng(seed)
    rounds = [sampler.edges(n, rng)]
    for left in range(sampler.max_rounds - 1, 0, -1):
        edges = np.concatenate(rounds)
        rounds.append(sampler.next_edges(n, edges, said[edges[:, 0], edges[:, 1]], left, rng))
    return rounds


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(2, 20),
    budget=st.integers(1, 400),
    rounds=st.integers(2, 6),
    sampler=st.sampled_from(SAMPLERS),
    seed=st.integers(0, 10**6),
)
def test_no_pair_twice_and_never_beyond_the_budget(
    n: int, budget: int, rounds: int, sampler: type[AdaptiveSampler], seed: int
) -> None:
    said = noisy(np.random.default_rng(seed).normal(0, 2, n), np.random.default_rng(seed))
    chosen = sampler(comparisons=budget, rounds=rounds)
    asked = ask_all(chosen, said, seed)
    edges = np.concatenate(asked)
    assert len(edges) == chosen.comparisons_at_most(n, 1) == min(budget, n * (n - 1) // 2)
    assert len({tuple(sorted(edge)) for edge in edges.tolist()}) == len(edges)
    again = np.concatenate(ask_all(chosen, said, seed))
    np.testing.assert_array_equal(again, edges)


def test_the_live_method_takes_the_smallest_differences() -> None:
    rng = np.random.default_rng(0)
    edges = Cycles(cycles=2).edges(12, rng)
    p = expit(rng.normal(0, 1, len(edges)))
    more = Closest(comparisons=40, random_share=0.6, rounds=3).next_edges(12, edges, p, 2, rng)
    known = estimate_query(12, edges, p, "thurstone", 0.05)
    gap = np.abs(known.elo[:, None] - known.elo)
    taken = gap[more[:, 0], more[:, 1]]
    left = known.unasked.copy()
    left[more[:, 0], more[:, 1]] = False
    assert taken.max() <= gap[left].min()


def test_the_first_pair_is_the_one_that_tells_most() -> None:
    """Against the definition: fit again with each pair added at its expected information."""
    rng = np.random.default_rng(1)
    n, sampler = 9, Informative(top=3, pool=1000)
    edges = Cycles(cycles=1).edges(n, rng)
    p = expit(rng.normal(0, 1, len(edges)))
    known = estimate_query(n, edges, p, "thurstone", 0.05)
    chosen = tuple(sampler.choose(known, 1, rng)[0].tolist())
    weight = sampler.floor + chance_of_top(known, 3)
    precision = np.linalg.pinv(known.covariance)
    best, least = None, np.inf
    for i, j in np.argwhere(known.unasked):
        u = np.zeros(n)
        u[i], u[j] = 1, -1
        told = expected_information(np.array([known.elo[i] - known.elo[j]]), "thurstone")[0]
        after = np.linalg.pinv(precision + told * np.outer(u, u))
        if (loss := float(weight @ after.diagonal())) < least:
            best, least = (int(i), int(j)), loss
    assert chosen == best


def test_expected_information_is_the_curvature_on_average() -> None:
    d = np.linspace(-3, 3, 13)
    for model, at_zero in (("thurstone", 4 / np.pi), ("bradley_terry", 0.25)):
        information = expected_information(d, model)
        assert information[6] == pytest.approx(at_zero)
        np.testing.assert_allclose(information, information[::-1])
        assert (np.diff(information[6:]) < 0).all()


def test_chances_of_the_top() -> None:
    sure = QueryEstimate(
        np.array([2.0, 1.0, -1.0, -2.0]), np.eye(4) * 1e-6, 1.0, np.ones((4, 4), bool)
    )
    np.testing.assert_allclose(chance_of_top(sure, 2), [1, 1, 0, 0], atol=1e-9)
    unsure = QueryEstimate(np.zeros(4), np.eye(4), 1.0, np.ones((4, 4), bool))
    np.testing.assert_allclose(chance_of_top(unsure, 2), 0.5)
    assert chance_of_top(sure, 9).tolist() == [1] * 4


@pytest.mark.parametrize("options", [{"stop_stderr": 0.2}, {"stop_stable": True}])
def test_a_clear_query_stops_early(options: dict[str, Any]) -> None:
    s = np.where(np.arange(40) < 10, 4.0, -4.0) + np.linspace(0, 0.5, 40)
    said = expit(s[:, None] - s)
    options |= {"comparisons": 600, "rounds": 8, "random_share": 0.1}
    never = {"stop_stderr": 0.0, "stop_stable": False}
    full = np.concatenate(ask_all(Informative(**{**options, **never}), said, 0))
    stopped = np.concatenate(ask_all(Informative(**options), said, 0))
    assert len(full) == 600
    assert len(stopped) < 400
    elo = fit(
        Comparisons(
            np.zeros(len(stopped), int),
            stopped[:, 0],
            stopped[:, 1],
            said[stopped[:, 0], stopped[:, 1]],
            sizes=[40],
        )
    ).elo
    assert set(np.argsort(-elo)[:10]) == set(range(10))


def test_a_failed_comparison_is_not_asked_again_and_not_a_tie() -> None:
    rng = np.random.default_rng(0)
    edges = Cycles(cycles=2).edges(10, rng)
    p = expit(rng.normal(0, 1, len(edges)))
    p[3] = np.nan
    known = estimate_query(10, edges, p, "thurstone", 0.05)
    assert not known.unasked[min(edges[3]), max(edges[3])]
    kept = np.delete(edges, 3, axis=0)
    alone = fit(Comparisons(np.zeros(19, int), kept[:, 0], kept[:, 1], np.delete(p, 3), sizes=[10]))
    np.testing.assert_array_equal(known.elo, alone.elo)


def test_informed_choice_beats_more_random_cycles_in_the_top_ten() -> None:
    """60 % of the comparisons, and the top ten are nearer to those of the dense matrix."""
    errors: dict[str, list[float]] = {"informative": [], "cycles": []}
    for q in range(30):
        rng = np.random.default_rng([7, q])
        said = noisy(rng.normal(0, 1.3, 100), rng)

        def elos(edges: Edges, said: np.ndarray = said) -> np.ndarray:
            p = said[edges[:, 0], edges[:, 1]]
            zero = np.zeros(len(edges), int)
            return fit(Comparisons(zero, edges[:, 0], edges[:, 1], p, sizes=[100])).elo

        dense = elos(all_pairs(100))
        top = np.argsort(-dense)[:10]
        chosen = {
            "informative": np.concatenate(ask_all(Informative(comparisons=240), said, q)),
            "cycles": Cycles(cycles=4).edges(100, rng),
        }
        for name, edges in chosen.items():
            errors[name].append(float(np.mean((elos(edges) - dense)[top] ** 2)))
    assert np.mean(errors["informative"]) < np.mean(errors["cycles"])


def test_covariance_shrinks_as_predicted() -> None:
    """The rank-one update that `Informative` uses is the inverse with the comparison added."""
    edges = Cycles(cycles=2).edges(8, np.random.default_rng(3))
    i, j = np.argwhere(
        estimate_query(8, edges, np.full(len(edges), 0.5), "thurstone", 0.05).unasked
    )[0]
    more = np.concatenate([edges, [[i, j]]])
    before, after = (
        covariance(
            Comparisons(np.zeros(len(e), int), e[:, 0], e[:, 1], np.full(len(e), 0.5)),
            np.zeros(8),
            0,
        )
        for e in (edges, more)
    )
    information = float(expected_information(np.zeros(1), "thurstone")[0])
    column = before[:, i] - before[:, j]
    spread = column[i] - column[j]
    update = np.outer(column, column) * information / (1 + information * spread)
    np.testing.assert_allclose(before - update, after, atol=1e-12)
