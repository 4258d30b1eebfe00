from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf

from zelo.comparison.graphs import Cycles
from zelo.rating import Comparisons, fit
from zelo.rating.judges import JudgeFit, fit_judges

SCALE, BIAS = np.array([12.0, 6.0, 3.0]) / 7, np.array([0.4, 0.0, -0.3])


def simulated(
    seed: int, queries: int = 60, n: int = 30
) -> tuple[Comparisons, np.ndarray, np.ndarray]:
    """Three judges with position bias and discrimination answer about every edge."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 0.7, (queries, n))
    truth -= truth.mean(1, keepdims=True)
    parts = []
    for q in range(queries):
        edges = Cycles(cycles=4).edges(n, rng)
        for k in range(3):
            d = SCALE[k] * (truth[q, edges[:, 0]] - truth[q, edges[:, 1]]) + BIAS[k]
            p = (rng.random(len(d)) < (1 + erf(d)) / 2).astype(float)
            columns = (np.full(len(d), q), edges[:, 0], edges[:, 1], p, np.full(len(d), k))
            parts.append(np.stack(columns, 1))
    rows = np.concatenate(parts)
    rows = rows[rng.permutation(len(rows))]
    query, i, j, judge = rows[:, [0, 1, 2, 4]].astype(int).T
    return Comparisons(query, i, j, rows[:, 3]), judge, truth.ravel()


@pytest.fixture(scope="module")
def fitted() -> tuple[JudgeFit, Comparisons, np.ndarray, np.ndarray]:
    comparisons, judge, truth = simulated(0)
    return fit_judges(comparisons, judge), comparisons, judge, truth


def test_bias_and_discrimination_are_recovered(fitted: tuple) -> None:
    found = fitted[0]
    assert found.converged
    np.testing.assert_allclose(found.scale, SCALE, rtol=0.1)
    np.testing.assert_allclose(found.bias, BIAS, atol=0.06)
    assert found.scale.mean() == pytest.approx(1)
    assert (np.abs(found.bias - BIAS) < 4 * found.bias_stderr).all()
    assert (np.abs(np.log(found.scale / SCALE)) < 4 * found.log_scale_stderr).all()


def test_the_elos_are_better_than_with_all_judges_alike(fitted: tuple) -> None:
    found, comparisons, _, truth = fitted
    plain = fit(comparisons, prior=1 / 0.7**2).elo
    assert np.corrcoef(found.elo, truth)[0, 1] > np.corrcoef(plain, truth)[0, 1] + 0.01
    inside = np.abs(found.elo - truth) < 1.96 * found.stderr
    assert 0.92 < inside.mean() < 0.98


def test_judges_that_are_alike_are_found_alike() -> None:
    rng = np.random.default_rng(1)
    edges = Cycles(cycles=4).edges(40, rng)
    truth = rng.normal(0, 0.7, 40)
    i, j = np.tile(edges, (4, 1)).T
    p = (rng.random(len(i)) < (1 + erf(truth[i] - truth[j])) / 2).astype(float)
    judge = np.repeat(np.arange(4), len(edges)) % 2
    found = fit_judges(Comparisons(np.zeros(len(i), int), i, j, p), judge)
    assert (np.abs(np.log(found.scale)) < 3 * found.log_scale_stderr).all()
    assert (np.abs(found.bias) < 3 * found.bias_stderr).all()


def test_a_judge_that_guesses_is_left_aside_and_the_elos_keep_their_scale() -> None:
    rng = np.random.default_rng(2)
    queries, n = 40, 16
    truth = rng.normal(0, 0.7, (queries, n))
    truth -= truth.mean(1, keepdims=True)
    rows = []
    for q in range(queries):
        for a, b in Cycles(cycles=3).edges(n, rng):
            d = truth[q, a] - truth[q, b]
            steady = (1 + erf(d + rng.normal(0, 0.05, 2))) / 2  # two judges that say how sure
            rows += [(q, a, b, p, k) for k, p in enumerate((*steady, rng.random()))]
    query, i, j, p, judge = map(np.array, zip(*rows, strict=True))
    comparisons = Comparisons(query, i, j, p)
    found = fit_judges(comparisons, judge, prior=0.05)
    assert found.scale[2] < 0.05
    good = judge < 2
    without = fit(Comparisons(query[good], i[good], j[good], p[good]), prior=0.05).elo
    assert np.corrcoef(found.elo, truth.ravel())[0, 1] > 0.99
    # The mean answer of the three moves with the Elos as a judge of scale 1 does: two thirds as
    # fast as that of the two good ones, whose Elos are two thirds as far apart.
    assert found.elo.std() / without.std() == pytest.approx(2 / 3, rel=0.05)


def test_no_answer_says_nothing() -> None:
    found = fit_judges(Comparisons([], [], [], []), [], 2)
    assert (found.elo.shape, found.scale.tolist(), found.bias.tolist()) == ((0,), [1, 1], [0, 0])
    assert found.converged


def test_a_judge_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match="row 1, query 0: judge 5 is out of range for 2 judges"):
        fit_judges(Comparisons([0, 0], [0, 1], [1, 2], [0.5, 0.5]), [0, 5], 2)
