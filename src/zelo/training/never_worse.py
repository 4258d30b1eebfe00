"""Which weights ship: the best that validated, or the starting model where none are surely better.

The starting model validates before the first step, on the same held-out queries as every
checkpoint after it. What decides is the gain in NDCG@10, query by query, of the checkpoint that is
best on average: that it was picked from several is part of the test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zelo.artifacts import read_json, write_json
from zelo.seeding import stream

Values = NDArray[np.float64]
START, TRAINED = "start", "trained"  # what can ship
UNPROVEN = (
    "unproven"  # folder of the trained model within the stage's output, where the start ships
)
CONFIDENCE, FLIPS = 0.95, 10_000
HALVINGS = 40


@dataclass(frozen=True)
class Shipped:
    """What ships, and why; `gain` in NDCG@10 on held-out queries, None where none validated."""

    what: str  # START or TRAINED
    why: str
    gain: float | None = None  # of the best checkpoint over the start
    at_least: float | None = None  # its lower bound at 95 %; None: too few queries for any

    def counts(self) -> dict[str, str | float]:
        """For the record of the stage."""
        numbers = {"val/gain": self.gain, "val/gain_at_least": self.at_least}
        known = {name: round(value, 4) for name, value in numbers.items() if value is not None}
        return {"shipped": self.what, "shipped_because": self.why, **known}


def write_values(folder: Path, step: int, values: Mapping[str, float]) -> None:
    """Keep the NDCG@10 of each held-out query after so many steps."""
    write_json(folder / f"values-{step:08}.json", dict(values))


def read_values(folder: Path) -> dict[int, dict[str, float]]:
    """Step → query → NDCG@10, of every validation."""
    paths = sorted(folder.glob("values-*.json"))
    return {int(path.stem.partition("-")[2]): read_json(path) for path in paths}


def choose(values: Mapping[int, Mapping[str, float]], seed: int) -> Shipped:
    """The start, unless the best of the later steps is surely better; `values` as `read_values`."""
    start, *later = values.values()
    gains_SQ = np.array([[row[query] - start[query] for query in start] for row in later])
    best, bound = best_of(gains_SQ, stream(seed, "never worse"))
    gain = float(gains_SQ[best].mean())
    at_least = bound if np.isfinite(bound) else None
    if bound > 0:
        return Shipped(TRAINED, "better on the held-out queries", gain, at_least)
    return Shipped(START, "training is not surely better on the held-out queries", gain, at_least)


def best_of(
    gains_SQ: Values,
    rng: np.random.Generator,
    confidence: float = CONFIDENCE,
    flips: int = FLIPS,
) -> tuple[int, float]:
    """The system with the highest mean gain over a baseline, and a one-sided lower bound of it.

    `gains_SQ` has the gain of each of S systems in each of Q queries. The bound is the largest
    gain that a randomisation test refuses: that of the highest of the S means, when each query's
    differences change their signs together. It so holds for the best of several (Westfall and
    Young's maximum), of ten queries as of a thousand, where a percentile bootstrap of ten is too
    narrow; it takes differences to be spread alike to both sides of their mean. −∞ where there are
    too few queries for any bound (4 at 95 %).
    """
    queries = gains_SQ.shape[1]
    mean_S = gains_SQ.mean(1)
    best = int(mean_S.argmax())
    sign_FQ = rng.choice((-1.0, 1.0), size=(flips, queries))
    flipped_FS, sign_F = sign_FQ @ gains_SQ.T / queries, sign_FQ.mean(1)

    def refused(gain: float) -> bool:
        """Whether it is too low to be the true gain of the best."""
        # Sums that differ by rounding alone are equal; what was observed is one of the draws.
        highest_F = flipped_FS.max(1) - gain * sign_F
        extreme = int((highest_F >= mean_S[best] - gain - 1e-12).sum())
        return (extreme + 1) / (flips + 1) <= 1 - confidence

    low = float(gains_SQ.min()) - max(float(np.ptp(gains_SQ)), 1e-3)
    high = float(mean_S[best])
    if not refused(low):
        return best, -np.inf
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if refused(middle) else (low, middle)
    return best, low
