"""A model's scores of a query's candidates fused with those of the first stage that found them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zelo.artifacts import read_json
from zelo.errors import UserError

FUSION = "fusion.json"  # in a model's folder: how it is fused
NORMALISATION = "z-score"
ALIKE = 1e-9  # scores whose spread is a smaller share of their size are equal but for rounding


def fused_scores(
    first_stage: Sequence[float], model: Sequence[float], weight: float
) -> NDArray[np.float64]:
    """`(1 − weight) · z(first stage) + weight · z(model)` of a query's candidates (n,).

    z-scores and not the range from worst to best, which one outlier among the candidates presses
    together.
    """
    return (1 - weight) * z_scores(first_stage) + weight * z_scores(model)


def z_scores(scores: Sequence[float]) -> NDArray[np.float64]:
    """Scores (n,) less their mean, over their standard deviation; 0 where they are all equal."""
    values = np.asarray(scores, dtype=np.float64)
    if not len(values) or values.std() <= ALIKE * np.abs(values).max():
        return np.zeros_like(values)
    z: NDArray[np.float64] = (values - values.mean()) / values.std()
    return z


def read_weight(folder: Path) -> float | None:
    """The weight that the model in `folder` came with; None where it came with none.

    `UserError` where its file is of another kind of fusion.
    """
    path = folder / FUSION
    if not path.is_file():
        return None
    said: dict[str, Any] = read_json(path, "weight", "normalisation")
    weight = said["weight"]
    if said["normalisation"] != NORMALISATION or not isinstance(weight, int | float):
        raise UserError(f"{path}: not a weight of {NORMALISATION}s; give --weight in its place")
    return float(weight)
