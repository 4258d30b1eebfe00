"""The pairwise model: what stands in for the ensemble, and its options (`distil.model`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zelo.config import option
from zelo.models.fine_tuned import FineTuned

if TYPE_CHECKING:
    from zelo.models.pairwise import PairwiseNetwork


class BasePairwiseModel(FineTuned):
    """A model that learns the ensemble's preferences; a subclass has the two methods below."""

    max_query_length: int = option(48, "longer queries are cut here", ge=4)
    max_length: int = option(192, "query and both documents together", ge=16)

    def network(self) -> PairwiseNetwork:
        """What is trained."""
        raise NotImplementedError

    def load(self, folder: Path) -> PairwiseNetwork:
        """What was trained and saved in `folder`, to be asked."""
        raise NotImplementedError


class PairwiseModel(BasePairwiseModel):
    """The pairwise cross-encoder of METHOD, stage 3."""

    logit_scale: float = option(6.0, "factor of the cosines in the head", gt=0)

    def network(self) -> PairwiseNetwork:
        """A new head on the pretrained model."""
        from zelo.models.pairwise import PairwiseCrossEncoder

        return PairwiseCrossEncoder(
            self.pretrained.locate(), self.max_query_length, self.max_length, self.logit_scale
        )

    def load(self, folder: Path) -> PairwiseNetwork:
        """Read what training wrote."""
        from zelo.models.pairwise import PairwiseCrossEncoder

        return PairwiseCrossEncoder.load(folder)
