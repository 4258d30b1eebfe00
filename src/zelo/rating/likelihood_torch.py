"""Likelihoods of a comparison as functions of the Elo difference `d = e_i − e_j`, in tensors.

Each returns, elementwise for tensors `d` (any shape, float64) and `p` in [0, 1], the negative
log-likelihood `−p log P(d) − (1 − p) log P(−d)` and its first and second derivative in `d`. All
are finite for |d| up to 10⁷ and convex in `d`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Likelihood = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]

SQRT2 = math.sqrt(2.0)
LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


def thurstone(d: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`P(d) = (1 + erf d) / 2`, METHOD's form of Thurstone's case V (stage 5).

    With `x = √2 d`, `P = Φ(x)`; the ratios `φ(x)/Φ(x)` are taken in logarithms, so that tails
    neither overflow nor turn into 0/0.
    """
    x = SQRT2 * d
    log_win, log_lose = torch.special.log_ndtr(x), torch.special.log_ndtr(-x)
    log_density = -0.5 * x * x - LOG_SQRT_2PI
    ratio_win = torch.exp(log_density - log_win)
    ratio_lose = torch.exp(log_density - log_lose)
    loss = -p * log_win - (1 - p) * log_lose
    slope = SQRT2 * ((1 - p) * ratio_lose - p * ratio_win)
    curvature = 2.0 * (
        p * ratio_win * (x + ratio_win).clamp_min(0.0)
        + (1 - p) * ratio_lose * (ratio_lose - x).clamp_min(0.0)
    )
    return loss, slope, curvature


def bradley_terry(d: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`P(d) = 1 / (1 + exp(−d))` (METHOD, stage 5)."""
    win = torch.sigmoid(d)
    log_win, log_lose = torch.nn.functional.logsigmoid(d), torch.nn.functional.logsigmoid(-d)
    return -p * log_win - (1 - p) * log_lose, win - p, win * torch.sigmoid(-d)


LIKELIHOODS: dict[str, Likelihood] = {"thurstone": thurstone, "bradley_terry": bradley_terry}
