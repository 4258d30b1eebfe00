"""The distilled pairwise reranker as a judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zelo.config import Component, option
from zelo.judging.protocol import Answer, Question
from zelo.models.batching import by_length
from zelo.store import digest, digest_files

if TYPE_CHECKING:
    from zelo.models.pairwise import PairwiseReranker


class Distilled(Component):
    """Answers with a pairwise model that the `distil` stage made."""

    folder: Path = option(help="the model's folder", exclude=True)
    made_by: str = option(help="fingerprint of the stage that made the model")
    batch_size: int = option(32, "comparisons read at once", ge=1, exclude=True)

    def prepare(
        self, data: Path, pairs: Mapping[str, Sequence[str]], seed: int
    ) -> PreparedDistilled:
        """Load the model; its weights are the fingerprint."""
        from zelo.models.pairwise import PairwiseReranker

        weights = digest_files(sorted(self.folder.glob("*.safetensors")))
        return PreparedDistilled(
            digest(["distilled", weights]), PairwiseReranker.load(self.folder), self.batch_size
        )


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
