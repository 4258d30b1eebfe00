"""An objective: how far predictions are from targets, both centred within each query."""

from zelo.config import option
from zelo.training.losses import centre, documents
from zelo.training.objectives import BaseObjective


class AbsoluteError(BaseObjective):
    target: str = option("centred", "map from Elo to target")

    def total(self, prediction, batch, others):
        w = batch.weight
        return ((centre(prediction, w) - centre(batch.target, w)).abs() * w).sum(1)

    def size(self, batch):
        return documents(batch.weight)
