"""Objectives: what a pointwise model's predictions are held against (`conf/objective/`).

Each names what it learns from and the map from Elo to target, and sums a loss of `losses.py` over
each query of a batch. `total(...).sum() / size(...).sum()` is the loss of the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from zelo.config import Component, build, conf_folder, option
from zelo.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zelo.training.batches import ScoredBatch


class BaseObjective(Component):
    """What an objective is, and what most have in common: they learn from targets.

    A subclass has `total` and `size`, and a field `target`.
    """

    target: str  # the map from Elo to target that it learns from (`rating.target`)
    shift_invariant: ClassVar[bool] = True  # a constant added to a query's predictions is nothing
    reads_judgments: ClassVar[bool] = False  # it learns from comparisons, not from targets

    @property
    def source_is_positive(self) -> bool:
        """Whether the document that a query was written from is taken as better than any other."""
        return False

    def total(self, prediction: Tensor, batch: ScoredBatch, others: Tensor | None) -> Tensor:
        """Summed loss (Q,) of each query; `others` (Q, D): scores of other queries' documents."""
        raise NotImplementedError

    def size(self, batch: ScoredBatch) -> Tensor:
        """What each query (Q,) counts in the mean."""
        raise NotImplementedError

    def activation(self) -> nn.Module:
        """What turns a prediction into a score on the targets' scale, for the shipped model: by
        default nothing, as predictions are on the Elos' scale, unbounded, or on none."""
        from torch.nn import Identity

        return Identity()


class MSE(BaseObjective):
    """`objective=mse`: `(sigmoid(prediction) − y)²` on the zELO score `y ∈ [0, 1]` (METHOD, 7)."""

    target: str = option("cdf", "map from Elo to target", pattern="^(cdf|minmax)$")
    shift_invariant: ClassVar[bool] = False

    def total(self, prediction: Tensor, batch: ScoredBatch, others: Tensor | None) -> Tensor:
        """Over documents."""
        from zelo.training.losses import squared_error

        return squared_error(prediction.sigmoid(), batch.target, batch.weight)

    def size(self, batch: ScoredBatch) -> Tensor:
        """Documents."""
        from zelo.training.losses import documents

        return documents(batch.weight)

    def activation(self) -> nn.Module:
        """Sigmoid: targets lie in [0, 1]."""
        from torch.nn import Sigmoid

        return Sigmoid()


class BCE(MSE):
    """`objective=bce`: cross-entropy of `sigmoid(prediction)` with the zELO score `y ∈ [0, 1]`."""

    def total(self, prediction: Tensor, batch: ScoredBatch, others: Tensor | None) -> Tensor:
        """Over documents."""
        from zelo.training.losses import cross_entropy

        return cross_entropy(prediction, batch.target, batch.weight)


class CentredMSE(BaseObjective):
    """`objective=centred_mse`: squared error after centring both sides within each query.

    Elos say nothing across queries, and nothing is asked of the predictions across queries either:
    the level of a query's scores is left free.
    """

    target: str = option("centred", "map from Elo to target", pattern="^centred$")

    def total(self, prediction: Tensor, batch: ScoredBatch, others: Tensor | None) -> Tensor:
        """Over documents."""
        from zelo.training.losses import centre, squared_error

        w = batch.weight
        return squared_error(centre(prediction, w), centre(batch.target, w), w)

    def size(self, batch: ScoredBatch) -> Tensor:
        """Documents."""
        from zelo.training.losses import documents

        return documents(batch.weight)


class MarginMSE(BaseObjective):
    """`objective=margin_mse`: squared error of the differences between documents."""

    target: str = option("centred", "map from Elo to target", pattern="^(centred|cdf|minmax)$")

    def total(self, prediction: Tensor, batch: ScoredBatch, others: Tensor | None) -> Tensor:
        """Over pairs."""
        from zelo.training.losses import margin_error

        return margin_error(prediction, batch.target, batch.weight)

    def size(self, batch: ScoredBatch) -> Tensor:
        """Pairs."""
        from zelo.training.losses import pairs

        return pairs(batch.weight)


class ListwiseKL(BaseObjective):
    """`objective=listwise_kl`: divergence of the softmax of predictions from that of targets."""

    target: str = option("centred", "map from Elo to target", pattern="^(centred|cdf|minmax)$")
    temperature: float = option(1.0, "divides both sides before the softmax", gt=0)

    def total(self, prediction: Tensor, batch: ScoredBatch, others: Tensor | None) -> Tensor:
        """Over queries."""
        from zelo.training.losses import listwise_divergence

        return listwise_divergence(prediction, batch.target, batch.weight, self.temperature)

    def size(self, batch: ScoredBatch) -> Tensor:
        """Queries."""
        from zelo.training.losses import queries

        return queries(batch.weight)


class RankNet(BaseObjective):
    """`objective=ranknet`: the better document of each pair above the other."""

    target: str = option("centred", "map from Elo to target", pattern="^(centred|cdf|minmax)$")

    def total(self, prediction: Tensor, batch: ScoredBatch, others: Tensor | None) -> Tensor:
        """Over pairs."""
        from zelo.training.losses import ranknet

        return ranknet(prediction, batch.target, batch.weight)

    def size(self, batch: ScoredBatch) -> Tensor:
        """Pairs of unequal targets."""
        from zelo.training.losses import pairs

        return pairs(batch.weight, batch.target)


class LambdaLoss(BaseObjective):
    """`objective=lambda_loss`: pairs weighted by what their order does to NDCG (NDCG-Loss2++)."""

    target: str = option("minmax", "map from Elo to target", pattern="^(cdf|minmax)$")
    k: int | None = option(10, "NDCG's cut; null: none", ge=1)
    grades: float = option(4.0, "targets in [0, 1] are stretched to grades from 0 to this", gt=0)

    def total(self, prediction: Tensor, batch: ScoredBatch, others: Tensor | None) -> Tensor:
        """Over pairs."""
        from zelo.training.losses import lambda_loss

        return lambda_loss(prediction, self.grades * batch.target, batch.weight, self.k)

    def size(self, batch: ScoredBatch) -> Tensor:
        """Pairs of unequal targets."""
        from zelo.training.losses import pairs

        return pairs((batch.weight > 0).float(), batch.target)


class InfoNCE(BaseObjective):
    """`objective=infonce`: the best-rated document against the others and against other queries'.

    The contrastive baseline. Other queries' documents are those of the batch's part on one device,
    and only a bi-encoder has their scores for nothing; a cross-encoder learns from its own
    candidates.
    """

    target: str = option("centred", "map from Elo to target", pattern="^(centred|cdf|minmax)$")
    in_batch: bool = option(True, "whether other queries' documents are negatives too")
    positives: str = option(
        "rated",
        "`rated`: the best-rated document is the positive; `source`: that which a written query "
        "was written from, whatever judges say of it",
        pattern="^(rated|source)$",
        added=True,
    )

    @property
    def source_is_positive(self) -> bool:
        """By `positives`."""
        return self.positives == "source"

    def total(self, prediction: Tensor, batch: ScoredBatch, others: Tensor | None) -> Tensor:
        """Over queries."""
        from zelo.training.losses import contrastive

        negatives = others if self.in_batch else None
        return contrastive(prediction, batch.target, batch.weight, negatives)

    def size(self, batch: ScoredBatch) -> Tensor:
        """Queries."""
        from zelo.training.losses import queries

        return queries(batch.weight)


class PairwiseLikelihood(BaseObjective):
    """`objective=thurstone`, `objective=bradley_terry`: likelihood straight on the judgments.

    Predictions take the place of Elos, and no rating is fitted between judges and model.
    """

    model: str = option("thurstone", "of P(i ≻ j)", pattern="^(thurstone|bradley_terry)$")
    target: str = option(
        "centred", "only validation reads targets", pattern="^(centred|cdf|minmax)$"
    )
    reads_judgments: ClassVar[bool] = True

    def total(self, prediction: Tensor, batch: ScoredBatch, others: Tensor | None) -> Tensor:
        """Over comparisons."""
        from zelo.training.losses import pairwise_likelihood

        row, first, second = batch.compared
        loss = pairwise_likelihood(
            prediction[row, first],
            prediction[row, second],
            batch.preference,
            self.model == "thurstone",
        )
        return prediction.new_zeros(len(prediction)).index_add(0, row, loss)

    def size(self, batch: ScoredBatch) -> Tensor:
        """Comparisons."""
        ones = batch.weight.new_ones(len(batch.preference))
        return batch.weight.new_zeros(len(batch.weight)).index_add(0, batch.compared[0], ones)


def objective_of(loss: str | BaseObjective | dict[str, Any]) -> BaseObjective:
    """An objective by its name in `conf/objective/` (mse, ranknet, ...), or as it was dumped.

    Raises `UserError` where there is none of that name.
    """
    if isinstance(loss, BaseObjective):
        return loss
    if isinstance(loss, str):
        from omegaconf import OmegaConf

        folder = conf_folder() / "objective"
        if not (folder / f"{loss}.yaml").is_file():
            known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
            raise UserError(f"loss={loss}: no such objective; there are {known}")
        loss = dict(OmegaConf.to_container(OmegaConf.load(folder / f"{loss}.yaml")))  # type: ignore[arg-type]
    built: BaseObjective = build(loss, "loss")
    return built
