"""Which weights ship: those that training ends with, an earlier checkpoint, or the starting model.

The starting model validates before the first step, on the same held-out queries as every
checkpoint after it. An earlier checkpoint is taken for the last only where it is surely better, and
what was trained for the start likewise: what decides is the gain in NDCG@10, query by query. Of
a hundred queries, the highest of five noisy means would often be that of a half-trained model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    gain: float | None = None  # of what was trained over the start
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


def best_step(values: Mapping[int, Mapping[str, float]], seed: int) -> int:
    """The last step, or an earlier one that is surely better; `values` as `read_values`, the
    start's left aside."""
    *earlier, last = [step for step in values if step > 0]
    if not earlier:
        return last
    gains_SQ = gains(values, earlier, last)
    best = int(gains_SQ.mean(1).argmax())
    return earlier[best] if lower_bound(gains_SQ, best, stream(seed, "best step")) > 0 else last


def choose(values: Mapping[int, Mapping[str, float]], step: int, seed: int) -> Shipped:
    """The weights of `step`, one of the later ones in `values`, or the start, step 0."""
    later = [other for other in values if other > 0]
    gains_SQ = gains(values, later, 0)
    chosen = later.index(step)
    bound = lower_bound(gains_SQ, chosen, stream(seed, "never worse"))
    gain = float(gains_SQ[chosen].mean())
    at_least = bound if np.isfinite(bound) else None
    if bound > 0:
        return Shipped(TRAINED, "better on the held-out queries", gain, at_least)
    return Shipped(START, "training is not surely better on the held-out queries", gain, at_least)


def gains(values: Mapping[int, Mapping[str, float]], steps: Sequence[int], over: int) -> Values:
    """Gain (S, Q) of each of these steps over another one, query by query."""
    return np.array([[values[step][q] - values[over][q] for q in values[over]] for step in steps])


def lower_bound(
    gains_SQ: Values,
    chosen: int,
    rng: np.random.Generator,
    confidence: float = CONFIDENCE,
    flips: int = FLIPS,
) -> float:
    """A one-sided lower bound of the mean gain of one of S systems, whichever was picked by them.

    `gains_SQ` has the gain of each in each of Q queries. The bound is the largest gain that a
    randomisation test refuses: that of the highest of the S means, when each query's differences
    change their signs together. It so holds for the best of several (Westfall and Young's maximum),
    of ten queries as of a thousand, where a percentile bootstrap of ten is too narrow; it takes
    differences to be spread alike to both sides of their mean. −∞ where there are too few queries
    for any bound (4 at 95 %).
    """
    queries = gains_SQ.shape[1]
    mean = float(gains_SQ[chosen].mean())
    sign_FQ = rng.choice((-1.0, 1.0), size=(flips, queries))
    highest_F, sign_F = (sign_FQ @ gains_SQ.T / queries).max(1), sign_FQ.mean(1)

    def refused(gain: float) -> bool:
        """Whether it is too low to be the true one."""
        # Sums that differ by rounding alone are equal; what was observed is one of the draws.
        extreme = int((highest_F - gain * sign_F >= mean - gain - 1e-12).sum())
        return (extreme + 1) / (flips + 1) <= 1 - confidence

    low, high = float(gains_SQ.min()) - max(float(np.ptp(gains_SQ)), 1e-3), mean
    if not refused(low):
        return -np.inf
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if refused(middle) else (low, middle)
    return low
