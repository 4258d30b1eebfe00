from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.stats import norm

from zelo.rating.likelihood import LIKELIHOODS
from zelo.rating.solver import Fit, fit

Rows = tuple[list[int], list[int], list[int], list[float], list[float]]


def instance(rng: np.random.Generator, sizes: list[int], extreme: bool = False) -> Rows:
    query, i, j, p, w = [], [], [], [], []
    for q, n in enumerate(sizes):
        for _ in range(3 * n if n > 1 else 0):
            a, b = rng.choice(n, 2, replace=False)
            query.append(q)
            i.append(int(a))
            j.append(int(b))
            p.append(float(rng.integers(2)) if extreme else float(rng.random()))
            w.append(float(rng.uniform(0.1, 3)))
    return query, i, j, p, w


def solve(sizes: list[int], rows: Rows, model: str, prior: float) -> Fit:
    query, i, j, p, w = rows
    return fit(
        torch.tensor(sizes),
        torch.tensor(query, dtype=torch.int64),
        torch.tensor(i, dtype=torch.int64),
        torch.tensor(j, dtype=torch.int64),
        torch.tensor(p, dtype=torch.float64),
        LIKELIHOODS[model],
        prior,
        torch.tensor(w, dtype=torch.float64),
    )


def log_win(d: NDArray[np.float64], model: str) -> NDArray[np.float64]:
    return norm.logcdf(math.sqrt(2) * d) if model == "thurstone" else -np.logaddexp(0, -d)


def objective(elo: NDArray[np.float64], q: int, rows: Rows, model: str, prior: float) -> float:
    query, i, j, p, w = (np.array(column) for column in rows)
    of = query == q
    d = elo[i[of]] - elo[j[of]]
    loss = -p[of] * log_win(d, model) - (1 - p[of]) * log_win(-d, model)
    return float((w[of] * loss).sum() + prior / 2 * (elo**2).sum())


@pytest.mark.parametrize("model", ["thurstone", "bradley_terry"])
@pytest.mark.parametrize("prior", [1e-3, 0.05, 2.0])
@pytest.mark.parametrize("extreme", [False, True])
def test_the_solution_is_scipys(model: str, prior: float, extreme: bool) -> None:
    sizes = [1, 2, 3, 7, 20]
    rows = instance(np.random.default_rng(3), sizes, extreme)
    solution = solve(sizes, rows, model, prior)
    assert solution.converged.all()
    for q, n in enumerate(sizes):
        elo = solution.elo[q, :n].numpy()
        found = minimize(
            objective, np.zeros(n), (q, rows, model, prior), method="BFGS", options={"gtol": 1e-9}
        )
        assert objective(elo, q, rows, model, prior) <= found.fun + 1e-9
        np.testing.assert_allclose(elo, found.x - found.x.mean(), atol=2e-4)


@pytest.mark.parametrize("model", ["thurstone", "bradley_terry"])
def test_standard_errors_are_the_inverse_hessian_on_the_zero_sum_subspace(model: str) -> None:
    sizes, prior = [9], 0.05
    rows = instance(np.random.default_rng(5), sizes)
    solution = solve(sizes, rows, model, prior)
    elo = solution.elo[0].clone().requires_grad_(True)
    _, i, j, p, w = rows

    def loss(e: torch.Tensor) -> torch.Tensor:
        d = e[torch.tensor(i)] - e[torch.tensor(j)]
        if model == "thurstone":
            win, lose = (
                torch.special.log_ndtr(math.sqrt(2) * d),
                torch.special.log_ndtr(-math.sqrt(2) * d),
            )
        else:
            win, lose = torch.nn.functional.logsigmoid(d), torch.nn.functional.logsigmoid(-d)
        t = torch.tensor
        return (
            t(w).double() * (-t(p).double() * win - (1 - t(p).double()) * lose)
        ).sum() + prior / 2 * (e**2).sum()

    hessian = torch.autograd.functional.hessian(loss, elo.detach()).numpy()
    centre = np.eye(9) - 1 / 9
    covariance = np.linalg.pinv(centre @ hessian @ centre)
    np.testing.assert_allclose(solution.stderr[0].numpy(), np.sqrt(np.diag(covariance)), rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), model=st.sampled_from(["thurstone", "bradley_terry"]))
def test_relabelling_and_company_change_nothing(seed: int, model: str) -> None:
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in rng.integers(1, 9, size=4)]
    rows = instance(rng, sizes, extreme=bool(rng.integers(2)))
    together = solve(sizes, rows, model, 0.05)
    assert torch.allclose(together.elo.sum(1), torch.zeros(4, dtype=torch.float64), atol=1e-9)
    q = int(rng.integers(4))
    permutation = rng.permutation(sizes[q])
    mine = [k for k, of in enumerate(rows[0]) if of == q]
    alone: Rows = (
        [0] * len(mine),
        [int(permutation[rows[1][k]]) for k in mine],
        [int(permutation[rows[2][k]]) for k in mine],
        [rows[3][k] for k in mine],
        [rows[4][k] for k in mine],
    )
    other = solve([sizes[q]], alone, model, 0.05)
    np.testing.assert_allclose(
        other.elo[0].numpy()[permutation], together.elo[q, : sizes[q]].numpy(), atol=1e-7
    )
    np.testing.assert_allclose(
        other.stderr[0].numpy()[permutation], together.stderr[q, : sizes[q]].numpy(), atol=1e-7
    )


def test_known_elos_are_recovered_from_noiseless_preferences() -> None:
    truth = np.array([1.2, 0.4, -0.1, -1.5])
    pairs = [(a, b) for a in range(4) for b in range(a)]
    p = [float(norm.cdf(math.sqrt(2) * (truth[a] - truth[b]))) for a, b in pairs]
    rows: Rows = ([0] * 6, [a for a, _ in pairs], [b for _, b in pairs], p, [1.0] * 6)
    elo = solve([4], rows, "thurstone", 1e-9).elo[0].numpy()
    np.testing.assert_allclose(elo, truth - truth.mean(), atol=1e-6)


@pytest.mark.parametrize("model", ["thurstone", "bradley_terry"])
def test_separable_and_disconnected_comparisons_stay_finite(model: str) -> None:
    chain: Rows = ([0] * 9, list(range(9)), list(range(1, 10)), [1.0] * 9, [1e6] * 9)
    solution = solve([12], chain, model, 1e-6)
    assert solution.converged.all()
    assert solution.elo.isfinite().all()
    assert (solution.elo[0, :9] > solution.elo[0, 1:10]).all()
    assert solution.elo[0, 10:].abs().max() < 1e-9  # never compared: the prior's mean
    assert (solution.stderr[0, 10:] > solution.stderr[0, :10].max()).all()


def test_nothing_to_rate_is_no_error() -> None:
    empty: Rows = ([], [], [], [], [])
    assert solve([], empty, "thurstone", 0.05).elo.shape == (0, 0)
    assert solve([1, 0, 2], empty, "thurstone", 0.05).elo.tolist() == [[0, 0]] * 3


@pytest.mark.parametrize(
    ("rows", "prior", "message"),
    [
        (
            ([0], [0], [1], [1.5], [1.0]),
            0.05,
            r"comparison 0 of query 0: preference is not in \[0, 1\]",
        ),
        (([0], [0], [1], [math.nan], [1.0]), 0.05, "preference is not in"),
        (([0], [1], [1], [0.5], [1.0]), 0.05, "compared with itself"),
        (([0], [0], [2], [0.5], [1.0]), 0.05, "document index out of range"),
        (([1], [0], [1], [0.5], [1.0]), 0.05, "query index out of range"),
        (([0], [0], [1], [0.5], [-1.0]), 0.05, "weight is not a number of at least 0"),
        (([0], [0], [1], [0.5], [1.0]), 0.0, "prior must be positive"),
    ],
)
def test_what_cannot_be_rated_is_refused(rows: Rows, prior: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve([2], rows, "thurstone", prior)
