"""Objectives: what a pointwise model's predictions are held against.

Each takes predictions and targets (queries, candidates) and a mask of the same shape that says
which places hold a document, and returns a scalar.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from zelo.config import Component, option

if TYPE_CHECKING:
    from torch import Tensor, nn


@runtime_checkable
class Objective(Protocol):
    """An objective (`conf/objective/`)."""

    target: str  # the map from Elo to target that it learns from (`rating.target`)
    level_free: ClassVar[bool]  # whether a constant added to a query's predictions changes nothing

    def __call__(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Loss of a batch, a scalar."""
        ...

    def activation(self) -> nn.Module:
        """What turns a prediction into a score on the targets' scale, for the shipped model."""
        ...


class MSE(Component):
    """`objective=mse`: `(sigmoid(prediction) − y)²` on the zELO score `y ∈ [0, 1]` (METHOD, 7)."""

    target: str = option("cdf", "map from Elo to target", pattern="^(cdf|minmax)$")
    level_free: ClassVar[bool] = False

    def __call__(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Mean over the documents of the batch."""
        return mse(prediction.sigmoid(), target, mask)

    def activation(self) -> nn.Module:
        """Sigmoid: targets lie in [0, 1]."""
        from torch.nn import Sigmoid

        return Sigmoid()


class CentredMSE(Component):
    """`objective=centred_mse`: squared error after centring both sides within each query.

    Elos say nothing across queries, and nothing is asked of the predictions across queries either:
    the level of a query's scores is left free.
    """

    target: str = option("centred", "map from Elo to target", pattern="^centred$")
    level_free: ClassVar[bool] = True

    def __call__(self, prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Mean over the documents of the batch."""
        return mse(centre(prediction, mask), centre(target, mask), mask)

    def activation(self) -> nn.Module:
        """None: Elos are unbounded."""
        from torch.nn import Identity

        return Identity()


def mse(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean of `(prediction − target)²` over the places of `mask`."""
    error = (prediction - target).square() * mask
    return error.sum() / mask.sum().clamp_min(1)


def centre(values: Tensor, mask: Tensor) -> Tensor:
    """Subtract from each row (queries, candidates) its mean over the places of `mask`."""
    mean = (values * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp_min(1)
    return (values - mean) * mask
