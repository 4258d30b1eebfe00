"""Intervals of means over queries, and a test of two systems on the same queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zelo.seeding import stream

Values = NDArray[np.float64]
BLOCK = 500  # resamples drawn at once, which limits memory


def bootstrap_interval(
    values: Values, rng: np.random.Generator, resamples: int = 10_000, confidence: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of `values` (queries,); (nan, nan) for none."""
    if len(values) == 0:
        return float("nan"), float("nan")
    return quantiles(bootstrap_means(values, rng, resamples), confidence)


def bootstrap_means(values: Values, rng: np.random.Generator, resamples: int) -> Values:
    """Means (resamples,) of samples drawn with replacement from `values` (queries,), at least 1."""
    means = [
        values[rng.integers(len(values), size=(BLOCK, len(values)))].mean(axis=1)
        for _ in range(-(-resamples // BLOCK))
    ]
    return np.concatenate(means)[:resamples]


def quantiles(means: Values, confidence: float = 0.95) -> tuple[float, float]:
    """The central interval that holds the share `confidence` of `means`."""
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Estimate:
    """A mean over queries with its 95 % interval."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """A system against a baseline on the same queries, in one metric."""

    metric: str
    system: str
    baseline: str
    difference: float  # of the means
    low: float  # of its 95 % interval, as is `high`
    high: float
    p_value: float
    p_corrected: float  # for all systems that are compared in this metric
    wins: int  # queries
    losses: int
    ties: int


def against(
    values: Mapping[tuple[str, str], Values],
    baseline: str,
    systems: Sequence[str],
    resamples: int,
    seed: int,
) -> list[Difference]:
    """Each system against the baseline in each metric; p-values corrected by Holm's method.

    `values` (queries,) are by system and metric, queries in one order.
    """
    found = []
    for metric in dict.fromkeys(metric for _, metric in values):
        b = values[baseline, metric]
        rows = []
        for system in systems:
            a = values[system, metric]
            low, high = bootstrap_interval(a - b, stream(seed, "difference", metric), resamples)
            p = randomisation_test(a, b, stream(seed, "test", metric), resamples)
            rows.append((system, a - b, low, high, p))
        for (system, d, low, high, p), corrected in zip(
            rows, holm([row[-1] for row in rows]), strict=True
        ):
            counts = int((d > 0).sum()), int((d < 0).sum()), int((d == 0).sum())
            found.append(
                Difference(
                    metric, system, baseline, float(d.mean()), low, high, p, corrected, *counts
                )
            )
    return found


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several comparisons, adjusted so that the chance of a single false finding among
    them is no higher than that of one comparison.

    Source: Holm, *A simple sequentially rejective multiple test procedure*, 1979.
    """
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def randomisation_test(
    a: Values, b: Values, rng: np.random.Generator, permutations: int = 10_000
) -> float:
    """Two-sided p-value of the paired randomisation test that `a` and `b` have equal means.

    Under the null hypothesis each query's two values may be exchanged: the sign of each difference
    is drawn at random. The observed assignment counts as one of the draws, so that p is never 0.
    Source: Smucker, Allan and Carterette, CIKM 2007.
    """
    difference = a - b
    observed = abs(difference.sum())
    extreme = 0
    for start in range(0, permutations, BLOCK):
        size = min(BLOCK, permutations - start)
        signs = rng.choice((-1.0, 1.0), size=(size, len(difference)))
        # Sums that differ by rounding alone are equal.
        extreme += int((np.abs(signs @ difference) >= observed - 1e-12).sum())
    return (extreme + 1) / (permutations + 1)
