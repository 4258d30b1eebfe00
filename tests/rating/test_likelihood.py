from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import erf, erfc

from zelo.rating.likelihood import LIKELIHOODS
from zelo.rating.targets import TARGETS


@pytest.mark.parametrize("model", sorted(LIKELIHOODS))
def test_derivatives_are_autograds(model: str) -> None:
    d = torch.linspace(-4, 4, 41, dtype=torch.float64).repeat(3).requires_grad_(True)
    p = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64).repeat_interleave(41)
    loss, slope, curvature = LIKELIHOODS[model](d, p)
    (first,) = torch.autograd.grad(loss.sum(), d, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), d)
    torch.testing.assert_close(slope, first, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(curvature, second, atol=1e-7, rtol=1e-7)


def test_the_models_are_methods() -> None:
    d = torch.linspace(-3, 3, 13, dtype=torch.float64)
    one = torch.ones_like(d)
    thurstone, bradley_terry = (
        torch.exp(-LIKELIHOODS[m](d, one)[0]) for m in ("thurstone", "bradley_terry")
    )
    # (1 + erf d) / 2 = erfc(−d) / 2, without the cancellation
    np.testing.assert_allclose(thurstone.numpy(), erfc(-d.numpy()) / 2, rtol=1e-12)
    np.testing.assert_allclose(bradley_terry.numpy(), 1 / (1 + np.exp(-d.numpy())), rtol=1e-12)


@pytest.mark.parametrize("model", sorted(LIKELIHOODS))
@pytest.mark.parametrize("d", [-1e7, -50.0, 50.0, 1e7])
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_tails_are_finite_and_convex(model: str, d: float, p: float) -> None:
    values = LIKELIHOODS[model](*(torch.tensor([x], dtype=torch.float64) for x in (d, p)))
    assert all(value.isfinite().all() for value in values)
    assert values[0] >= 0
    assert values[2] >= 0


def test_targets() -> None:
    elo = np.array([1.0, -2.0, 1.0])
    assert TARGETS["centred"](elo).tolist() == [1.0, -2.0, 1.0]
    np.testing.assert_allclose(TARGETS["cdf_thurstone"](elo), (1 + erf(elo)) / 2)
    np.testing.assert_allclose(TARGETS["cdf_bradley_terry"](elo), 1 / (1 + np.exp(-elo)))
    assert TARGETS["minmax"](elo).tolist() == [1.0, 0.0, 1.0]
    assert TARGETS["minmax"](np.zeros(2)).tolist() == [0.5, 0.5]
    assert [len(TARGETS[name](np.zeros(0))) for name in TARGETS] == [0] * 4
