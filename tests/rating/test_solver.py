from __future__ import annotations

import math
import sys

import choix
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import erf
from scipy.stats import norm

from zelo.comparison.graphs import Cycles
from zelo.rating import (
    ComparisonError,
    Comparisons,
    Fit,
    covariance,
    difference_errors,
    dispersion,
    fit,
    likelihood,
    reference,
    solver,
    standard_errors,
)

MODELS = ["thurstone", "bradley_terry"]
Rows = dict[str, list[float]]


def instance(
    rng: np.random.Generator, sizes: list[int], extreme: bool = False, shuffled: bool = False
) -> Comparisons:
    rows = []
    for q, n in enumerate(sizes):
        for _ in range(3 * n if n > 1 else 0):
            a, b = rng.choice(n, 2, replace=False)
            p = float(rng.integers(2)) if extreme else float(rng.random())
            rows.append((q, int(a), int(b), p, float(rng.uniform(0.1, 3)), float(rng.normal())))
    if shuffled:
        rng.shuffle(rows)
    query, i, j, p, w, known = zip(*rows, strict=True)
    return Comparisons(
        [int(q) for q in query], [int(a) for a in i], [int(b) for b in j], p, w, sizes, known
    )


def heaviest(c: Comparisons) -> NDArray[np.float64]:
    total = np.zeros(int(c.offsets[-1]))
    np.add.at(total, c.base + c.i, c.weight)
    np.add.at(total, c.base + c.j, c.weight)
    return np.maximum.reduceat(total, c.offsets[:-1])


def by_reference(c: Comparisons, model: str, prior: float) -> NDArray[np.float64]:
    found = []
    for q, n in enumerate(c.sizes):
        rows = c.rows_of(q)
        known = c.known[rows] if len(c.known) else 0.0
        columns = (column[rows] for column in (c.i, c.j, c.p, c.weight))
        found.append(reference.newton(int(n), *columns, model, prior, known))
    return np.concatenate(found)


def slack(c: Comparisons, *fits: Fit, model: str, prior: float = 0.05) -> NDArray[np.float64]:
    """How far the Elos (D,) of fits with one minimum may be apart, by what each promises."""
    stderr = standard_errors(c, fits[0].elo, model, prior)
    return np.repeat(sum(fitted.error for fitted in fits), c.sizes) * stderr


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("prior", [1e-3, 0.05, 2.0])
@pytest.mark.parametrize("extreme", [False, True])
def test_the_reference_is_scipys(model: str, prior: float, extreme: bool) -> None:
    c = instance(np.random.default_rng(3), [1, 2, 7, 20], extreme)

    def objective(elo: NDArray[np.float64], q: int) -> float:
        rows = c.rows_of(q)
        d = elo[c.i[rows]] - elo[c.j[rows]] + c.known[rows]
        win, lose = (
            norm.logcdf(s * math.sqrt(2) * d) if model == "thurstone" else -np.logaddexp(0, -s * d)
            for s in (1, -1)
        )
        loss = -c.p[rows] * win - (1 - c.p[rows]) * lose
        return float(c.weight[rows] @ loss + prior / 2 * elo @ elo)

    elos = by_reference(c, model, prior)
    for q, n in enumerate(c.sizes):
        elo = elos[c.offsets[q] : c.offsets[q + 1]]
        found = minimize(objective, np.zeros(n), q, method="BFGS", options={"gtol": 1e-9})
        assert objective(elo, q) <= found.fun + 1e-9
        np.testing.assert_allclose(elo, found.x - found.x.mean(), atol=5e-4)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("prior", [1e-4, 0.05, 2.0])
@pytest.mark.parametrize("extreme", [False, True])
def test_the_solver_is_the_reference(model: str, prior: float, extreme: bool) -> None:
    c = instance(np.random.default_rng(7), [1, 2, 3, 40, 7, 150], extreme, shuffled=True)
    left = 1e-15 * (1 + heaviest(c)) * np.sqrt(c.sizes / prior)
    fitted = fit(c, model, prior)
    elo, error = fitted.elo, fitted.error
    stderr = standard_errors(c, elo, model, prior)
    assert fitted.converged.all()
    assert fitted.iterations.max() < 40
    np.testing.assert_array_less(error, 1e-8 + 1.001 * left)
    exact = by_reference(c, model, prior)  # within 1e-12 standard errors itself, but for rounding
    off = np.repeat(error + 1e-12 + left, c.sizes) * stderr
    assert (np.abs(elo - exact) <= off).all()
    for q in range(c.queries):
        c_q = covariance(c, elo, q, model, prior)
        np.testing.assert_allclose(
            stderr[c.offsets[q] : c.offsets[q + 1]], np.sqrt(np.diag(c_q)), rtol=1e-6, atol=1e-9
        )


@pytest.mark.parametrize("model", MODELS)
def test_covariance_is_the_inverse_hessian_on_the_zero_sum_subspace(model: str) -> None:
    c = instance(np.random.default_rng(5), [9])
    elo = fit(c, model, 0.05).elo
    _, _, matrix = likelihood.derivatives(elo, c.i, c.j, c.p, c.weight, model, 0.05, c.known)
    found = covariance(c, elo, 0, model, 0.05)
    np.testing.assert_allclose(found, reference.covariance(matrix), atol=1e-12)
    np.testing.assert_allclose(found.sum(0), 0, atol=1e-12)
    u = np.zeros(9)
    u[2], u[5] = 1, -1
    assert difference_errors(found)[2, 5] == pytest.approx(math.sqrt(u @ found @ u))

    # and the Hessian is that of the objective, by finite differences of its gradient
    def gradient(e: NDArray[np.float64]) -> NDArray[np.float64]:
        return likelihood.derivatives(e, c.i, c.j, c.p, c.weight, model, 0.05, c.known)[1]

    for a in range(9):
        h = np.zeros(9)
        h[a] = 1e-6
        np.testing.assert_allclose(
            (gradient(elo + h) - gradient(elo - h)) / 2e-6, matrix[:, a], atol=1e-6
        )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), model=st.sampled_from(MODELS), extreme=st.booleans())
def test_relabelling_and_company_change_nothing(seed: int, model: str, extreme: bool) -> None:
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.integers(2, 12, size=4)]
    c = instance(rng, sizes, extreme, shuffled=True)
    together = fit(c, model)
    assert [together.of(q).sum() for q in range(4)] == pytest.approx([0] * 4, abs=1e-9)
    q = int(rng.integers(4))
    permutation, mine = rng.permutation(sizes[q]), c.rows_of(q)
    alone = fit(
        Comparisons(
            np.zeros(len(mine), int),
            permutation[c.i[mine]],
            permutation[c.j[mine]],
            c.p[mine],
            c.weight[mine],
            [sizes[q]],
            c.known[mine],
        ),
        model,
    )
    apart = np.abs(alone.elo[permutation] - together.of(q))
    one = slack(c, together, model=model)[c.offsets[q] : c.offsets[q + 1]]
    assert (apart <= one * (1 + alone.error[0] / together.error[q])).all()


def test_an_elo_is_no_nearer_than_doubles_are_to_one_another() -> None:
    """Where all else is known better than that: the same Elos in another order but for the last
    bit, which the promise knows of."""
    rng, queries, m, prior = np.random.default_rng(0), 3000, 30, 1e6
    query = np.repeat(np.arange(queries), m)
    i, p = rng.integers(0, 2, len(query)), rng.random(len(query))
    weight = rng.choice([0.0, 5e3, 1e4, 3e4], len(query))
    known = rng.uniform(-20, 20, len(query))
    c = Comparisons(query, i, 1 - i, p, weight, known=known)
    back = np.arange(len(query))[::-1]  # and the documents have changed places
    other = Comparisons(query[back], 1 - i[back], i[back], p[back], weight[back], known=known[back])
    one, turned = fit(c, prior=prior), fit(other, prior=prior)
    apart = np.abs(one.elo - turned.elo.reshape(-1, 2)[:, ::-1].ravel())
    assert apart.max() > 0
    assert (apart <= slack(c, one, turned, model="thurstone", prior=prior)).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), model=st.sampled_from(MODELS))
@example(seed=6982, model="thurstone")  # the prior alone holds one of its documents
def test_weight_repetition_direction_and_average_are_one(seed: int, model: str) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 9))
    i = rng.integers(n, size=12)
    j = (i + rng.integers(1, n, size=12)) % n
    p, zero = rng.random(12), np.zeros(12, int)
    heavy = Comparisons(zero, i, j, p, np.full(12, 2.0), [n])
    twice = Comparisons(np.zeros(24, int), np.r_[i, j], np.r_[j, i], np.r_[p, 1 - p], None, [n])
    low, high = np.maximum(0, 2 * p - 1), np.minimum(1, 2 * p)  # two answers of mean p
    apart = Comparisons(np.zeros(24, int), np.r_[i, i], np.r_[j, j], np.r_[low, high], None, [n])
    one = fit(heavy, model)
    for c in (twice, apart):
        other = fit(c, model)
        assert (np.abs(other.elo - one.elo) <= slack(heavy, one, other, model=model)).all()


def test_known_elos_are_recovered_from_noiseless_preferences() -> None:
    truth = np.array([1.2, 0.4, -0.1, -1.5])
    i, j = np.triu_indices(4, 1)
    p = (1 + erf(truth[i] - truth[j])) / 2
    elo = fit(Comparisons(np.zeros(6, int), i, j, p), prior=1e-9).elo
    np.testing.assert_allclose(elo, truth - truth.mean(), atol=1e-6)


def test_bradley_terry_is_choixs() -> None:
    rng = np.random.default_rng(0)
    pairs = [tuple(rng.choice(12, 2, replace=False).tolist()) for _ in range(150)]
    theirs = choix.opt_pairwise(12, pairs, alpha=0.2, tol=1e-9)
    i, j = np.array(pairs).T
    # choix penalises by alpha · Σ θ², which is a prior of precision 2 alpha.
    ours = fit(Comparisons(np.zeros(150, int), i, j, np.ones(150)), "bradley_terry", 0.4).elo
    np.testing.assert_allclose(ours, theirs - theirs.mean(), atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("n", "pairs", "p"),
    [
        (12, [(k, k + 1) for k in range(8)], 1.0),  # separable, and documents never compared
        (6, [(0, 1), (2, 3), (4, 5)], 0.8),  # disconnected
        (5, [(0, k) for k in range(1, 5)], 1.0),  # one document wins all
        (5, [(a, b) for a in range(5) for b in range(a)], 0.5),  # all tied
        (3, [(0, 1), (1, 2), (2, 0)], 1.0),  # contradictory
    ],
)
@pytest.mark.parametrize("prior", [1e-6, 0.05])
@pytest.mark.parametrize("weight", [1.0, 1e6])
def test_hard_cases_have_finite_answers(
    model: str, n: int, pairs: list[tuple[int, int]], p: float, prior: float, weight: float
) -> None:
    i, j = np.array(pairs).T
    m = len(pairs)
    c = Comparisons(np.zeros(m, int), i, j, np.full(m, p), np.full(m, weight), [n])
    fitted = fit(c, model, prior)
    stderr = standard_errors(c, fitted.elo, model, prior)
    assert fitted.converged.all()
    assert np.isfinite(fitted.elo).all()
    assert np.isfinite(stderr).all()
    compared = np.zeros(n, bool)
    compared[np.r_[i, j]] = True
    assert np.abs(fitted.elo[~compared]).max(initial=0) < 1e-6  # the prior's mean
    if (len(set(map(frozenset, pairs))) == m and p == 0.5) or (n, p) == (3, 1.0):
        np.testing.assert_allclose(fitted.elo, 0, atol=1e-6)  # ties and contradictions: equal
    if (n, p) == (12, 1.0):
        assert (np.diff(fitted.elo[:9]) < 0).all()
        assert c.components.tolist() == [4]
    if n == 6:
        assert c.components.tolist() == [3]
        np.testing.assert_allclose(fitted.elo[::2] + fitted.elo[1::2], 0, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_differences_of_twenty_are_recovered(model: str) -> None:
    truth = np.array([10.0, 0.0, -10.0])
    i, j = np.array([0, 1]), np.array([1, 2])
    fitted = fit(
        Comparisons([0, 0], i, j, [1.0, 1.0], known=[-20.0, -20.0]), model, prior=1e-9
    )  # both surely won, against odds of 20
    assert fitted.converged.all()
    assert np.isfinite(fitted.elo).all()
    assert (fitted.elo[:2] - fitted.elo[1:] > 20).all()
    start = fit(Comparisons([0, 0], i, j, [0.5, 0.5]), model, 1e-3, start=truth)
    np.testing.assert_allclose(start.elo, 0, atol=1e-4)


@pytest.mark.parametrize("n", [3, 8, 17, 30, 64, 100])
def test_a_hard_query_does_not_change_an_easy_one(n: int) -> None:
    rng = np.random.default_rng(1)
    easy = Cycles(cycles=3).edges(n, rng)
    p = rng.random(len(easy))
    alone = Comparisons(np.zeros(len(easy), int), easy[:, 0], easy[:, 1], p)
    query = np.r_[np.zeros(len(easy), int), np.ones(999, int)]
    i, j = np.r_[easy[:, 0], np.arange(999)], np.r_[easy[:, 1], np.arange(1, 1000)]
    beside = Comparisons(
        query, i, j, np.r_[p, np.ones(999)], np.r_[np.ones(len(easy)), [1e6] * 999]
    )
    fitted, expected = fit(beside, prior=0.05), fit(alone, prior=0.05)
    assert fitted.converged.all()
    assert fitted.of(0).tobytes() == expected.elo.tobytes()
    errors = standard_errors(beside, fitted.elo, prior=0.05)[:n]
    assert errors.tobytes() == standard_errors(alone, expected.elo, prior=0.05).tobytes()
    assert (np.diff(fitted.of(1)) < 0).all()


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_change_nothing(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "CHUNK", 64)
    rng = np.random.default_rng(2)
    c = instance(rng, [int(n) for n in rng.integers(1, 30, 60)], shuffled=True)
    one, many = fit(c, threads=1), fit(c, threads=threads)
    assert one.elo.tobytes() == many.elo.tobytes()
    assert list(solver.chunked(c))[-1][1] == 60
    np.testing.assert_array_equal(
        standard_errors(c, one.elo, threads=1), standard_errors(c, one.elo, threads=threads)
    )


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64])
def test_tensors_in_tensors_out(device: str, dtype: torch.dtype) -> None:
    c = instance(np.random.default_rng(0), [5, 100, 8])
    p = torch.as_tensor(c.p).to(device, dtype).requires_grad_(dtype.is_floating_point)
    rows = (torch.as_tensor(x).to(device) for x in (c.query, c.i, c.j))
    tensors = Comparisons(*rows, p, torch.as_tensor(c.weight, device=device))
    plain = Comparisons(c.query, c.i, c.j, p.detach().cpu().double().numpy(), c.weight)
    fitted, expected = fit(tensors), fit(plain)
    stderr = standard_errors(tensors, torch.as_tensor(expected.elo, device=device))
    real = dtype if dtype.is_floating_point else torch.float64
    for ours, theirs, kind in (
        (fitted.elo, expected.elo, real),
        (fitted.error, expected.error, real),
        (stderr, standard_errors(plain, expected.elo), real),
        (fitted.converged, expected.converged, torch.bool),
        (fitted.iterations, expected.iterations, torch.int64),
    ):
        assert (ours.dtype, ours.device.type, ours.requires_grad) == (kind, device, False)
        assert torch.equal(ours.cpu(), torch.as_tensor(theirs).to(kind))
    assert torch.equal(fitted.of(1), fitted.elo[5:105])


def test_a_warm_start_has_less_to_do() -> None:
    c = instance(np.random.default_rng(0), [50] * 10)
    cold = fit(c)
    warm = fit(c, start=cold.elo + 1.0)
    assert warm.iterations.max() <= 1 < cold.iterations.min()
    assert (np.abs(warm.elo - cold.elo) <= slack(c, cold, warm, model="thurstone")).all()


@pytest.mark.parametrize("model", MODELS)
def test_intervals_cover_the_truth_where_the_model_holds(model: str) -> None:
    """95 % intervals of Elos and of differences, over 60,000 documents of 3,000 queries."""
    rng, queries, n = np.random.default_rng(0), 3000, 20
    spread = 0.7 if model == "thurstone" else 1.2
    truth = rng.normal(0, spread, (queries, n))
    truth -= truth.mean(1, keepdims=True)
    edges = [Cycles(cycles=4).edges(n, rng) for _ in range(queries)]
    query = np.repeat(np.arange(queries), [len(e) for e in edges])
    i, j = np.concatenate(edges).T
    d = truth[query, i] - truth[query, j]
    chance = (1 + erf(d)) / 2 if model == "thurstone" else 1 / (1 + np.exp(-d))
    c = Comparisons(query, i, j, (rng.random(len(d)) < chance).astype(float))
    prior = 1 / spread**2
    elo = fit(c, model, prior).elo
    stderr = standard_errors(c, elo, model, prior)
    covered = np.abs(elo - truth.ravel()) <= 1.96 * stderr
    assert 0.93 <= covered.mean() <= 0.97
    hits = []
    for q in range(300):
        error = difference_errors(covariance(c, elo, q, model, prior))
        e = elo[q * n : q * n + n]
        off = (e[:, None] - e) - (truth[q][:, None] - truth[q])
        hits.append((np.abs(off) <= 1.96 * error)[np.triu_indices(n, 1)])
    assert 0.93 <= np.mean(hits) <= 0.97


@pytest.mark.parametrize("model", MODELS)
def test_dispersion_is_one_for_coin_flips_and_small_for_consistent_answers(model: str) -> None:
    rng = np.random.default_rng(0)
    i = rng.integers(10, size=3000)
    j = (i + rng.integers(1, 10, size=3000)) % 10
    e = rng.normal(0, 0.7, 10)
    chance = (1 + erf(e[i] - e[j])) / 2 if model == "thurstone" else 1 / (1 + np.exp(e[j] - e[i]))
    flips = Comparisons(np.zeros(3000, int), i, j, (rng.random(3000) < chance).astype(float))
    assert dispersion(flips, fit(flips, model).elo, model)[0] == pytest.approx(1, abs=0.02)
    truth = np.random.default_rng(0).normal(0, 0.5, 20)
    edges = Cycles(cycles=4).edges(20, np.random.default_rng(1))
    p = (1 + erf(truth[edges[:, 0]] - truth[edges[:, 1]])) / 2
    c = Comparisons(np.zeros(len(edges), int), edges[:, 0], edges[:, 1], p)
    assert dispersion(c, fit(c, prior=1e-6).elo)[0] < 1e-6
    few = Comparisons([0], [0], [1], [0.7])
    assert np.isnan(dispersion(few, fit(few).elo)[0])


def test_variance_follows_distance_and_degree() -> None:
    """METHOD's two heuristics: errors grow with graph distance and fall with degree."""
    chain = Comparisons(np.zeros(9, int), range(9), range(1, 10), [0.5] * 9)
    error = difference_errors(covariance(chain, fit(chain).elo, 0))
    assert (np.diff(error[0]) > 0).all()
    star = Comparisons(np.zeros(9, int), [0] * 9, range(1, 10), [0.5] * 9)
    stderr = standard_errors(star, fit(star).elo)
    assert (stderr[0] < stderr[1:]).all()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"p": [0.5, 1.5]}, r"row 1, query 0: preference is not in \[0, 1\]"),
        ({"p": [math.nan, 0.5]}, "row 0, query 0: preference is not in"),
        ({"i": [0, 1], "j": [1, 1]}, "row 1, query 0: a document is compared with itself"),
        ({"j": [1, 3]}, "row 1, query 0: document index out of range"),
        ({"j": [1, -1]}, "row 1, query 0: document index out of range"),
        ({"weight": [1.0, -1.0]}, "row 1, query 0: weight is not a number of at least 0"),
        ({"weight": [math.inf, 1.0]}, "row 0, query 0: weight is not"),
        ({"known": [0.0, math.nan]}, "row 1, query 0: known part of the difference"),
    ],
)
def test_a_bad_comparison_is_named(columns: dict[str, list[float]], message: str) -> None:
    good = {"query": [0, 0], "i": [0, 0], "j": [1, 2], "p": [0.5, 0.5], "sizes": [3]}
    with pytest.raises(ComparisonError, match=message):
        Comparisons(**{**good, **columns})


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"query": [0, 1]}, "row 1: query 1 is out of range for 1 queries"),
        ({"sizes": [3, 0]}, "query 1: no documents to compare"),
        ({"query": [0, 2], "sizes": None}, "query 1: no documents to compare"),
        ({"p": [0.5]}, "one length"),
        ({"i": [0.5, 0]}, "i must be whole numbers"),
    ],
)
def test_bad_columns_are_named(columns: dict[str, list[float]], message: str) -> None:
    good = {"query": [0, 0], "i": [0, 0], "j": [1, 2], "p": [0.5, 0.5], "sizes": [3]}
    with pytest.raises(ValueError, match=message):
        Comparisons(**{**good, **columns})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": 0.0}, "prior must be finite and at least"),
        ({"prior": math.inf}, "prior must be finite and at least"),
        ({"model": "elo"}, "model must be one of thurstone, bradley_terry"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"start": [0.0]}, "3 finite Elos are needed, found shape"),
        ({"start": [0.0, 1.0, math.nan]}, "3 finite Elos are needed"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(Comparisons([0, 0], [0, 0], [1, 2], [0.5, 0.5]), **options)


def test_elos_of_another_size_are_refused() -> None:
    c = Comparisons([0, 0], [0, 0], [1, 2], [0.5, 0.5])
    for call in (standard_errors, dispersion, lambda c, elo: covariance(c, elo, 0)):
        with pytest.raises(ValueError, match=r"3 finite Elos are needed, found shape \(2,\)"):
            call(c, np.zeros(2))


def test_nothing_to_rate_is_no_error() -> None:
    empty = Comparisons([], [], [], [])
    assert fit(empty).elo.shape == (0,)
    alone = fit(Comparisons([], np.zeros(0, int), np.zeros(0, int), [], sizes=[1, 3]))
    assert alone.elo.tolist() == [0] * 4
    assert alone.converged.all()


def test_a_document_on_a_thread_is_rated_as_well_as_the_heavy_ones() -> None:
    """Two documents tied a billion times over, and a third that lost once to one of them."""
    c = Comparisons([0, 0], [0, 0], [1, 2], [0.5, 1.0], [1e9, 1.0])
    fitted = fit(c)
    assert fitted.converged.all()

    def pull(x: float) -> float:  # of the third's Elo −2x, where the tied ones are at x
        return float(likelihood.thurstone(np.array([3 * x]), np.ones(1))[1][0]) + 0.05 * 2 * x

    x = brentq(pull, 0, 5, xtol=1e-15)
    off = fitted.error[0] * standard_errors(c, fitted.elo) + 2e-9  # and the tie gives by that
    assert (np.abs(fitted.elo - [x, x, -2 * x]) <= off).all()
    assert off.max() < 1e-4


@pytest.mark.parametrize("model", MODELS)
def test_curvatures_change_as_slowly_as_the_bound_needs(model: str) -> None:
    d = np.linspace(-12, 12, 4801)
    for p in (0.0, 1e-6, 0.3, 0.5, 0.9, 1.0):
        curvature = likelihood.LIKELIHOODS[model](d, np.full_like(d, p))[2]
        told = curvature > 1e-60
        change = np.abs(np.diff(np.log(curvature[told])) / np.diff(d[told]))
        most = 2 * np.abs(d[told]).clip(0.005)[1:] + 0.5 if model == "thurstone" else 1.0
        assert (change <= most + 0.01).all()


def test_a_fit_starts_where_it_ended() -> None:
    c = instance(np.random.default_rng(4), [1, 2, 30, 8])
    once = fit(c, tolerance=1e-10)
    again = fit(c, start=once.elo)
    assert again.iterations.tolist() == [0] * 4
    np.testing.assert_allclose(again.elo, once.elo, atol=1e-15)


def test_what_cannot_converge_says_so() -> None:
    c = instance(np.random.default_rng(0), [30])
    fitted = fit(c, tolerance=sys.float_info.min)  # as far as doubles go, and no error
    assert fitted.converged.all()
    assert (np.abs(fitted.elo - fit(c).elo) <= slack(c, fitted, fit(c), model="thurstone")).all()
    heavy = Comparisons(c.query, c.i, c.j, c.p, c.weight * 1e11, c.sizes, c.known * 20)
    fitted = fit(heavy, prior=1e-12)
    assert not fitted.converged.any()
    assert np.isfinite(fitted.elo).all()
