from __future__ import annotations

import numpy as np
import pytest
from scipy.special import erf

from zelo.rating import targets, weights
from zelo.rating.targets import TARGETS

ELO, OFFSETS = np.array([1.0, -2.0, 1.0, 0.5, -0.5]), np.array([0, 3, 5])
BIAS = np.array([-1.0, 1.0])
LEVEL = np.array([0.0, -3.0, 0.0, 1.5, 0.5])


def test_targets_within_queries() -> None:
    assert targets("centred", "thurstone", ELO, OFFSETS).tolist() == ELO.tolist()
    np.testing.assert_allclose(targets("cdf", "thurstone", ELO, OFFSETS), (1 + erf(ELO)) / 2)
    np.testing.assert_allclose(
        targets("cdf", "bradley_terry", ELO, OFFSETS), 1 / (1 + np.exp(-ELO))
    )
    assert targets("minmax", "thurstone", ELO, OFFSETS).tolist() == [1, 0, 1, 1, 0]


def test_targets_on_a_common_scale() -> None:
    assert targets("centred", "thurstone", ELO, OFFSETS, BIAS).tolist() == LEVEL.tolist()
    np.testing.assert_allclose(
        targets("cdf", "thurstone", ELO, OFFSETS, BIAS), (1 + erf(LEVEL)) / 2
    )
    np.testing.assert_allclose(
        targets("minmax", "thurstone", ELO, OFFSETS, BIAS), (LEVEL + 3) / 4.5
    )


@pytest.mark.parametrize("kind", TARGETS)
def test_equal_and_missing_documents(kind: str) -> None:
    assert len(targets(kind, "thurstone", np.zeros(0), np.array([0]))) == 0
    found = targets(kind, "thurstone", np.zeros(2), np.array([0, 0, 2]))
    assert found.tolist() == [0.0 if kind == "centred" else 0.5] * 2


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(ValueError, match="target must be one of centred, cdf, minmax"):
        targets("log", "thurstone", ELO, OFFSETS)


def test_weights_are_inverse_variances() -> None:
    rng = np.random.default_rng(0)
    stderr = rng.uniform(0.1, 2, 50_000)
    truth = rng.normal(0, 1.5, 50_000)
    w = weights(truth + rng.normal(0, stderr), stderr)
    assert w.mean() == pytest.approx(1)
    expected = 1 / (1.5**2 + stderr**2)
    np.testing.assert_allclose(w, expected / expected.mean(), rtol=0.03)
    assert weights(np.zeros(3), np.ones(3)).tolist() == [1, 1, 1]
    assert np.isfinite(weights(np.ones(3), np.full(3, 100.0))).all()
