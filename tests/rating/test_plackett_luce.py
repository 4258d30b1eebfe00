from __future__ import annotations

import choix
import numpy as np
import pytest

from zelo.rating import Comparisons, fit, fit_rankings, standard_errors
from zelo.rating.plackett_luce import derivatives
from zelo.rating.reference import covariance


def draw(e: np.ndarray, rng: np.random.Generator, k: int) -> np.ndarray:
    shown = rng.choice(len(e), k, replace=False)
    return shown[np.argsort(-(e[shown] + rng.gumbel(size=k)))]


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
    rankings = [draw(e, rng, k) for k in (2, 3, 5, 5)]
    value, gradient, matrix = derivatives(e, rankings, 0.3)
    for a in range(5):
        h = np.zeros(5)
        h[a] = 1e-6
        up, down = derivatives(e + h, rankings, 0.3), derivatives(e - h, rankings, 0.3)
        assert (up[0] - down[0]) / 2e-6 == pytest.approx(gradient[a], abs=1e-7)
        np.testing.assert_allclose((up[1] - down[1]) / 2e-6, matrix[:, a], atol=1e-7)
    assert value > 0


@pytest.mark.parametrize("prior", [1e-4, 0.05])
def test_elos_are_within_what_is_promised_of_the_best(prior: float) -> None:
    rng = np.random.default_rng(4)
    rankings = [draw(rng.normal(0, 1, 7), rng, int(rng.integers(2, 4))) for _ in range(6)]
    exact = fit_rankings([0] * 6, rankings, prior, 1e-13, [9])  # two documents are in none
    error = np.sqrt(np.diag(covariance(derivatives(exact.elo, rankings, prior)[2])))
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


@pytest.mark.parametrize(
    ("query", "rankings", "sizes", "message"),
    [
        ([0, 0], [[0, 1], [1, 1]], None, "row 1, query 0: a document is listed twice"),
        ([0], [[0, 3]], [3], "row 0, query 0: document index out of range"),
        ([0], [[0]], [3], "row 0, query 0: a ranking needs two documents"),
        ([1], [[0, 1]], None, "query 0: no documents"),
        ([0, 1], [[0, 1]], None, "2 queries for 1 rankings"),
        ([2], [[0, 1]], [2], "row 0: query 2 is out of range"),
    ],
)
def test_bad_rankings_are_named(
    query: list[int], rankings: list[list[int]], sizes: list[int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        fit_rankings(query, rankings, sizes=sizes)
