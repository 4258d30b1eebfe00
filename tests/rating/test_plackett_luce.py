from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import choix
import numpy as np
import pytest

from zelo.rating import Comparisons, fit, fit_rankings, standard_errors
from zelo.rating.plackett_luce import RankingChoices, choices_of, derivatives, ranking_errors
from zelo.rating.reference import covariance


def draw(e: np.ndarray, rng: np.random.Generator, k: int) -> np.ndarray:
    shown = rng.choice(len(e), k, replace=False)
    return shown[np.argsort(-(e[shown] + rng.gumbel(size=k)))]


def one_query(rankings: Sequence[Any], sizes: list[int], **more: Any) -> RankingChoices:
    (choices,) = choices_of([0] * len(rankings), rankings, sizes, **more)
    return choices


def test_two_documents_are_bradley_terry() -> None:
    rng = np.random.default_rng(0)
    i = rng.integers(6, size=40)
    j = (i + rng.integers(1, 6, size=40)) % 6
    c = Comparisons(np.zeros(40, int), i, j, np.ones(40), sizes=[6])
    pairs = fit(c, "bradley_terry")
    rankings = fit_rankings(np.zeros(40, int), np.stack([i, j], 1), sizes=[6])
    stderr = standard_errors(c, pairs.elo, "bradley_terry")
    off = (rankings.error[0] + pairs.error[0]) * stderr
    assert (np.abs(rankings.elo - pairs.elo) <= off).all()


def test_rankings_are_choixs() -> None:
    rng = np.random.default_rng(1)
    rankings = [draw(rng.normal(0, 1, 8), rng, int(rng.integers(2, 9))) for _ in range(60)]
    theirs = choix.opt_rankings(8, [r.tolist() for r in rankings], alpha=0.1, tol=1e-9)
    ours = fit_rankings([0] * 60, rankings, prior=0.2, sizes=[8]).elo
    np.testing.assert_allclose(ours, theirs - theirs.mean(), atol=1e-5)


def test_derivatives_are_differences() -> None:
    rng = np.random.default_rng(2)
    e = rng.normal(0, 1, 5)
    rankings: list[object] = [*(draw(e, rng, k) for k in (2, 3, 5)), [[0, 3], 4, [2, 1]]]
    choices = one_query(rankings, [5], below=[(), (), (), ()])
    value, gradient, matrix = derivatives(e, choices, 0.3)
    for a in range(5):
        h = np.zeros(5)
        h[a] = 1e-6
        up, down = derivatives(e + h, choices, 0.3), derivatives(e - h, choices, 0.3)
        assert (up[0] - down[0]) / 2e-6 == pytest.approx(gradient[a], abs=1e-7)
        np.testing.assert_allclose((up[1] - down[1]) / 2e-6, matrix[:, a], atol=1e-7)
    assert value > 0


@pytest.mark.parametrize("prior", [1e-4, 0.05])
def test_elos_are_within_what_is_promised_of_the_best(prior: float) -> None:
    rng = np.random.default_rng(4)
    rankings = [draw(rng.normal(0, 1, 7), rng, int(rng.integers(2, 4))) for _ in range(6)]
    exact = fit_rankings([0] * 6, rankings, prior, 1e-13, [9])  # two documents are in none
    error = np.sqrt(np.diag(covariance(derivatives(exact.elo, one_query(rankings, [9]), prior)[2])))
    for tolerance in (1e-2, 1e-5, 1e-8):
        found = fit_rankings([0] * 6, rankings, prior, tolerance, [9])
        assert found.converged.all()
        assert tolerance / 1e9 < found.error[0] <= tolerance * 1.001
        assert (np.abs(found.elo - exact.elo) <= (found.error + exact.error) * error).all()


def test_known_elos_are_recovered() -> None:
    rng = np.random.default_rng(3)
    truth = np.array([[1.0, 0.2, -0.4, -0.8], [0.5, 0.5, -0.5, -0.5]])
    query = np.repeat([0, 1], 3000)
    fitted = fit_rankings(query, [draw(truth[q], rng, 4) for q in query])
    assert fitted.converged.all()
    np.testing.assert_allclose(fitted.elo, truth.ravel(), atol=0.08)


def test_one_sided_rankings_are_finite() -> None:
    fitted = fit_rankings([0] * 50, [[0, 1, 2]] * 50, prior=1e-6, sizes=[5])
    assert fitted.converged.all()
    assert np.isfinite(fitted.elo).all()
    assert fitted.elo[0] > fitted.elo[1] > fitted.elo[2]
    assert np.abs(fitted.elo[3:]).max() < 1e-6


def nll(e: np.ndarray, ranking: Sequence[Any], below: Sequence[int] = ()) -> float:
    return derivatives(e, one_query([ranking], [len(e)], below=[below]), 1e-12)[0]


def test_a_tie_of_two_is_a_comparison_without_a_winner() -> None:
    rng = np.random.default_rng(5)
    i = rng.integers(5, size=30)
    j = (i + rng.integers(1, 5, size=30)) % 5
    c = Comparisons(np.zeros(30, int), i, j, np.full(30, 0.5), sizes=[5])
    decided = Comparisons(np.zeros(3, int), [0, 1, 2], [1, 2, 3], np.ones(3), sizes=[5])
    tied = [[pair] for pair in zip(i.tolist(), j.tolist(), strict=True)]
    by_ties = fit_rankings([0] * 30, tied, comparisons=decided)
    by_pairs = fit_rankings([], [], comparisons=decided_and(c, decided))
    np.testing.assert_allclose(by_ties.elo, by_pairs.elo, atol=1e-7)
    plain = fit(decided_and(c, decided), "bradley_terry")
    np.testing.assert_allclose(by_pairs.elo, plain.elo, atol=1e-7)
    errors = ranking_errors([0] * 30, tied, by_ties.elo, comparisons=decided)
    theirs = standard_errors(decided_and(c, decided), plain.elo, "bradley_terry")
    np.testing.assert_allclose(errors, theirs, atol=1e-6)


def decided_and(c: Comparisons, d: Comparisons) -> Comparisons:
    columns = (np.concatenate([getattr(one, name) for one in (c, d)]) for name in "ij")
    p = np.concatenate([c.p, d.p])
    return Comparisons(np.zeros(len(p), int), *columns, p, sizes=[5])


@pytest.mark.parametrize(("tied", "others"), [(2, 1), (3, 0), (3, 2), (5, 1), (6, 0), (6, 2)])
def test_ties_are_the_mean_over_their_orders(tied: int, others: int) -> None:
    """Exactly up to five; of more where they are equal, and nearly where they are not."""
    rng = np.random.default_rng(6)
    lower = list(range(tied, tied + others))
    tie = [list(range(tied)), *lower]
    for spread in (0.0, 0.3):
        e = np.concatenate([spread * rng.normal(size=tied), rng.normal(-1, 0.5, others)])
        orders = [[*order, *lower] for order in permutations(range(tied))]
        mean = np.mean([slope(e, order) for order in orders], 0)
        atol = 0.25 * np.abs(mean).max() if tied > 5 and spread else 1e-9
        np.testing.assert_allclose(slope(e, tie), mean, atol=atol)
        if tied <= 5:
            assert nll(e, tie) == pytest.approx(np.mean([nll(e, order) for order in orders]))


def slope(e: np.ndarray, ranking: Sequence[Any]) -> np.ndarray:
    return derivatives(e, one_query([ranking], [len(e)]), 1e-12)[1]


def test_what_is_only_known_to_be_below_has_no_order() -> None:
    """A choice of the best of four is one choice, and a list that was cut off goes to its end."""
    e = np.array([0.7, 0.1, -0.2, -0.6])
    best = -np.log(np.exp(0.7) / np.exp(e).sum())
    assert nll(e, [0], [1, 2, 3]) == pytest.approx(best)
    then = -np.log(np.exp(0.1) / np.exp(e[1:]).sum())
    assert nll(e, [0, 1], [2, 3]) == pytest.approx(best + then)
    assert nll(e, [0, 1, 2], [3]) == pytest.approx(nll(e, [0, 1, 2, 3]))
    fitted = fit_rankings([0] * 40, [[0]] * 40, below=[[1, 2, 3]] * 40)
    assert fitted.elo[0] > 2
    np.testing.assert_allclose(fitted.elo[1:], fitted.elo[1], atol=1e-7)


def test_lists_with_ties_recover_elos() -> None:
    """Documents that a judge cannot tell apart, as it sees grades alone, come out in order."""
    rng = np.random.default_rng(7)
    truth = np.linspace(1.5, -1.5, 7)
    rankings = []
    for _ in range(1500):
        shown = rng.choice(7, 5, replace=False)
        utility = truth[shown] + rng.gumbel(size=5)
        grade = np.round(utility)  # ties where utilities are close
        rankings.append([shown[grade == g].tolist() for g in sorted(set(grade), reverse=True)])
    fitted = fit_rankings([0] * len(rankings), rankings)
    scale = fitted.elo @ truth / (truth @ truth)
    assert 0.8 < scale < 1  # as of comparisons: a tie says that two are closer than they are
    np.testing.assert_allclose(fitted.elo / scale, truth, atol=0.1)


@pytest.mark.parametrize(
    ("query", "rankings", "sizes", "message"),
    [
        ([0, 0], [[0, 1], [1, 1]], None, "row 1, query 0: a document is listed twice"),
        ([0], [[0, 3]], [3], "row 0, query 0: document index out of range"),
        ([0], [[0]], [3], "row 0, query 0: a ranking needs two documents"),
        ([1], [[0, 1]], None, "query 0: no documents"),
        ([0, 1], [[0, 1]], None, "2 queries for 1 rankings"),
        ([2], [[0, 1]], [2], "row 0: query 2 is out of range"),
        ([0], [[[0, 1], [2, 0]]], None, "row 0, query 0: a document is listed twice"),
    ],
)
def test_bad_rankings_are_named(
    query: list[int], rankings: list[list[int]], sizes: list[int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_rankings(query, rankings, sizes=sizes)
