"""From Elos to training targets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, expit

Elos = NDArray[np.float64]


def centred(elo: Elos) -> Elos:
    """The Elos (n,) of one query themselves: zero-sum, unbounded."""
    return elo - elo.mean() if len(elo) else elo


def cdf_thurstone(elo: Elos) -> Elos:
    """`(1 + erf e) / 2` in [0, 1]: the chance of being preferred to a document of Elo 0."""
    score: Elos = (1.0 + erf(elo)) / 2.0
    return score


def cdf_bradley_terry(elo: Elos) -> Elos:
    """`1 / (1 + exp(−e))` in [0, 1]: the same chance in that model."""
    score: Elos = expit(elo)
    return score


def minmax(elo: Elos) -> Elos:
    """Elos (n,) of one query stretched to [0, 1]; ½ for all where they are equal."""
    spread = np.ptp(elo) if len(elo) else 0.0
    return (elo - elo.min()) / spread if spread > 0 else np.full_like(elo, 0.5)


TARGETS: dict[str, Callable[[Elos], Elos]] = {
    "centred": centred,
    "cdf_thurstone": cdf_thurstone,
    "cdf_bradley_terry": cdf_bradley_terry,
    "minmax": minmax,
}
