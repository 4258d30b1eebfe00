"""From Elos to training targets, and how much weight each deserves.

Elos of all documents are flat (D,), query after query; `offsets` (Q + 1,) says where each begins.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import erf, expit

from zelo.rating.comparisons import Reals, Wholes


def targets(kind: str, model: str, elo: Reals, offsets: Wholes, bias: Reals | None = None) -> Reals:
    """Training targets (D,) of the Elos `elo` (D,), zero-sum within each query (METHOD, stage 7).

    `centred`: the Elos themselves, unbounded. `cdf`, in [0, 1]: the chance, under `model`, of being
    preferred to a document of Elo 0. `minmax`, in [0, 1]: each query stretched to its own worst
    and best, ½ where all are equal.

    With `bias` (Q,), that of each query from cross-query comparisons (stage 6), all of them are of
    `e_i + b_q`, on one scale for all queries, and `minmax` stretches to the worst and best document
    of any query.
    """
    absolute = elo if bias is None else elo + np.repeat(bias, np.diff(offsets))
    if kind == "centred":
        return absolute.copy()
    if kind == "cdf":
        return CDF[model](absolute)
    if kind == "minmax":
        return minmax(absolute, offsets if bias is None else np.array([0, len(absolute)]))
    raise ValueError(f"target must be one of {', '.join(TARGETS)}, found {kind}")


TARGETS = ("centred", "cdf", "minmax")
CDF: dict[str, Callable[[Reals], Reals]] = {
    "thurstone": lambda elo: (1.0 + erf(elo)) / 2.0,
    "bradley_terry": lambda elo: np.asarray(expit(elo)),
}


def minmax(elo: Reals, offsets: Wholes) -> Reals:
    """Each run of values between `offsets` stretched to [0, 1]; ½ for all where they are equal."""
    sizes = np.diff(offsets)
    if len(elo) == 0:
        return elo.copy()
    starts = offsets[:-1][sizes > 0]
    low = np.repeat(np.minimum.reduceat(elo, starts), sizes[sizes > 0])
    spread = np.repeat(np.maximum.reduceat(elo, starts), sizes[sizes > 0]) - low
    return np.asarray(np.where(spread > 0, (elo - low) / np.where(spread > 0, spread, 1.0), 0.5))


def weights(elo: Reals, stderr: Reals) -> Reals:
    """Weights (D,) of the targets in a loss: the reliability of each Elo, of mean 1.

    Reliability is `σ² / (σ² + stderr²)`, the share of an Elo's variance that is not error; `σ²` is
    the variance of the true Elos, that of the fitted ones less their mean squared error (at least
    a tenth of it). In a squared loss this is weighting by inverse variance where the target's
    error adds to a noise of variance `σ²`. All 1 where nothing varies.
    """
    seen, noise = float(np.mean(np.square(elo))), float(np.mean(np.square(stderr)))
    true = max(seen - noise, 0.1 * seen)
    if not true > 0:
        return np.ones_like(elo)
    reliability = true / (true + np.square(stderr))
    return np.asarray(reliability / reliability.mean())
