"""What takes the steps, and how large they are (`conf/training/optimizer/`, `.../schedule/`)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from zelo.config import Component, option

if TYPE_CHECKING:
    import torch


LR = 1e-4  # of AdamW, for a model of width 384 or for adapters
Decay = Annotated[float, Field(ge=0, lt=1)]


class Optimizer(Component):
    """Base of the optimizers."""

    lr: float | None = option(
        None,
        "learning rate: the largest, which the schedule scales; null: 1e-4, in the stage train "
        "less for wide models that are trained as a whole",
        gt=0,
    )
    weight_decay: float = option(0.01, "a weight loses this share, times the rate, per step", ge=0)

    def create(
        self, parameters: Iterable[torch.nn.Parameter], scaled: bool
    ) -> torch.optim.Optimizer:
        """The optimizer of these parameters; `scaled`: their gradients come from a scaled loss."""
        raise NotImplementedError


class AdamW(Optimizer):
    """Adam with decoupled weight decay: two numbers of state per weight."""

    betas: tuple[Decay, Decay] = option(
        (0.9, 0.999), "decay per step of the mean gradient, and of the mean square"
    )
    eps: float = option(1e-8, "added to the root of the mean square", gt=0)

    def create(
        self, parameters: Iterable[torch.nn.Parameter], scaled: bool
    ) -> torch.optim.Optimizer:
        """Fused, unless gradients are scaled: a fused one undoes the scale in its step alone."""
        import torch

        return torch.optim.AdamW(
            parameters,
            lr=self.lr or LR,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=not scaled,
        )


class Adafactor(Optimizer):
    """Adafactor: of a matrix it keeps the mean squares of rows and columns, hardly any memory."""

    lr: float = option(
        2e-3, "learning rate: the largest, as a share of the size of what changes", gt=0
    )
    weight_decay: float = option(0.0, "a weight loses this share, times the rate, per step", ge=0)
    beta2_decay: float = option(-0.8, "power of the step by which old squares are forgotten", lt=0)
    clipping: float = option(1.0, "largest root mean square of an update before its rate", gt=0)

    def create(
        self, parameters: Iterable[torch.nn.Parameter], scaled: bool
    ) -> torch.optim.Optimizer:
        """As torch has it."""
        import torch

        return torch.optim.Adafactor(
            parameters,
            lr=self.lr,
            beta2_decay=self.beta2_decay,
            d=self.clipping,
            weight_decay=self.weight_decay,
        )


class Schedule(Component):
    """Base of the schedules: the rate rises linearly to its peak, then a curve of its own."""

    warmup_ratio: float = option(
        0.1, "share of the steps over which the rate rises from 0", ge=0, lt=1
    )

    def factor(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied by at `step` of `steps`, counted from 0."""
        warmup = max(round(self.warmup_ratio * steps), 1)
        if step < warmup:
            return (step + 1) / warmup
        return self.after_warmup(max(steps - step, 0) / max(steps - warmup, 1))

    def after_warmup(self, left: float) -> float:
        """The factor where the share `left` of the steps after the warm-up is to come."""
        raise NotImplementedError


class LinearSchedule(Schedule):
    """The rate falls linearly to 0."""

    def after_warmup(self, left: float) -> float:
        """A line."""
        return left


class CosineSchedule(Schedule):
    """The rate falls to 0 along half a wave of the cosine."""

    def after_warmup(self, left: float) -> float:
        """Slow, fast, slow."""
        return (1 - math.cos(math.pi * left)) / 2


class ConstantSchedule(Schedule):
    """The rate stays at its peak."""

    def after_warmup(self, left: float) -> float:
        """The peak."""
        return 1.0
