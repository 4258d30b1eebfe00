from __future__ import annotations

import mpmath
import numpy as np
import pytest
from scipy.special import erfc

from zelo.rating import kernels, likelihood
from zelo.rating.kernels.likelihoods import exp_minus

MODELS = ["thurstone", "bradley_terry"]


def test_the_models_are_methods() -> None:
    d = np.linspace(-3, 3, 13)
    thurstone, bradley_terry = (
        np.exp(-likelihood.LIKELIHOODS[model](d, np.ones(13))[0]) for model in MODELS
    )
    for model in MODELS:
        won, lost, mixed = (
            likelihood.LIKELIHOODS[model](d, np.full(13, p))[0] for p in (1.0, 0.0, 0.3)
        )
        np.testing.assert_allclose(lost, won[::-1], rtol=1e-12)
        np.testing.assert_allclose(mixed, 0.3 * won + 0.7 * lost, rtol=1e-12)
    # (1 + erf d) / 2 = erfc(−d) / 2, without the cancellation
    np.testing.assert_allclose(thurstone, erfc(-d) / 2, rtol=1e-12)
    np.testing.assert_allclose(bradley_terry, 1 / (1 + np.exp(-d)), rtol=1e-12)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_derivatives_are_exact(model: str, p: float) -> None:
    d = np.linspace(-4, 4, 41)
    _, slope, curvature = likelihood.LIKELIHOODS[model](d, np.full(41, p))
    expected = np.array([exact(model, x, p) for x in d])
    np.testing.assert_allclose(slope, expected[:, 0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(curvature, expected[:, 1], rtol=1e-11, atol=1e-12)


def exact(model: str, d: float, p: float) -> tuple[float, float]:
    """Slope and curvature to 40 digits."""
    with mpmath.workdps(40):
        x, total, bend = mpmath.mpf(d), mpmath.mpf(0), mpmath.mpf(0)
        for share, sign in ((mpmath.mpf(p), 1), (1 - mpmath.mpf(p), -1)):
            y = sign * x
            if model == "thurstone":
                first = 2 * mpmath.exp(-y * y) / mpmath.sqrt(mpmath.pi) / mpmath.erfc(-y)
                second = -first * (2 * y + first)
            else:
                first = 1 / (1 + mpmath.exp(y))
                second = -first * (1 - first)
            total -= share * sign * first
            bend -= share * second
        return float(total), float(bend)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("p", [0.0, 1e-3, 0.5, 0.7, 1.0])
def test_the_kernels_are_exact_from_the_middle_to_the_tails(model: str, p: float) -> None:
    d = np.concatenate([np.linspace(-20, 20, 201), np.linspace(-0.5, 0.5, 101), [-300.0, 300.0]])
    slope, curvature = np.empty_like(d), np.empty_like(d)
    kernel = kernels.thurstone if model == "thurstone" else kernels.bradley_terry
    kernel(d, np.full_like(d, p), np.ones_like(d), slope, curvature)
    expected = np.array([exact(model, x, p) for x in d])
    # exp(−d²) of the far tail has the rounding of d² in it: |d| = 20 is 400 · 2⁻⁵³.
    near = np.abs(d) <= 20
    np.testing.assert_allclose(slope[near], expected[near, 0], rtol=2e-13, atol=5e-15)
    np.testing.assert_allclose(curvature[near], expected[near, 1], rtol=2e-13, atol=5e-15)
    assert np.isfinite(slope).all()
    assert np.isfinite(curvature).all()
    np.testing.assert_allclose(slope[-2:], expected[-2:, 0], rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("d", [-1e7, -50.0, 50.0, 1e7])
@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
def test_tails_are_finite_and_convex(model: str, d: float, p: float) -> None:
    values = likelihood.LIKELIHOODS[model](np.array([d]), np.array([p]))
    loss, slope, curvature = (float(v[0]) for v in values)
    assert np.isfinite([loss, slope, curvature]).all()
    assert loss >= 0
    assert curvature >= 0


def test_exp_is_exact() -> None:
    for u in np.concatenate([np.linspace(0, 1, 101), np.linspace(1, 700, 501)]):
        with mpmath.workdps(30):
            assert exp_minus(u) == pytest.approx(float(mpmath.exp(-mpmath.mpf(u))), rel=4e-16)
