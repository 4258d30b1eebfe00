"""The distilled pairwise reranker as a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zelo.config import Component, option
from zelo.errors import UserError
from zelo.judging.protocol import Answer, Question
from zelo.models.batching import by_length
from zelo.store import digest, digest_files

if TYPE_CHECKING:
    from zelo.models.pairwise import PairwiseReranker


class Distilled(Component):
    """Answers with a pairwise model that the `distil` stage made."""

    folder: Path = option(help="the model's folder", exclude=True)
    made_by: str | None = option(
        None, "fingerprint of the stage that makes the model; null: it is there already"
    )
    batch_size: int = option(32, "comparisons read at once", ge=1, exclude=True)

    def fingerprint(self) -> str | None:
        """Digest of the weights, where no stage is yet to make them."""
        return None if self.made_by else digest_files(self._weights())

    def _weights(self) -> list[Path]:
        found = sorted(self.folder.expanduser().glob("*.safetensors"))
        if not found:
            raise UserError(f"judge: {self.folder}: no distilled pairwise model is there")
        return found

    def prepare(
        self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int
    ) -> PreparedDistilled:
        """Load the model; its weights are the fingerprint."""
        from zelo.models.pairwise import PairwiseReranker

        weights = digest_files(self._weights())
        model = PairwiseReranker.load(self.folder.expanduser())
        return PreparedDistilled(digest(["distilled", weights]), model, self.batch_size)


@dataclass(frozen=True)
class PreparedDistilled:
    """The loaded model."""

    fingerprint: str
    model: PairwiseReranker
    batch_size: int

    def answer(self, questions: Sequence[Question]) -> list[Answer]:
        """Score `1 − 2p` of each question, both orders averaged; similar lengths read together."""
        from zelo.progress import track

        batches = by_length([len(q.text_a) + len(q.text_b) for q in questions], self.batch_size)
        scores = [0.0] * len(questions)
        for part in track(batches, "distilled judge"):
            p = self.model.preference(
                [(questions[i].query, questions[i].text_a, questions[i].text_b) for i in part]
            )
            for i, value in zip(part, p.tolist(), strict=True):
                scores[i] = 1.0 - 2.0 * value
        return [Answer(score) for score in scores]
