"""The cross-encoder: query and document read together, and what the stages do with one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from zelo.config import option
from zelo.errors import UserError
from zelo.training.trainable import TrainableModel

if TYPE_CHECKING:
    from zelo.training.tokenized import CrossEncoderInputs


class CrossEncoder(TrainableModel):
    """`model=reranker`: one score per pair of query and document.

    Heads: `mean` (mean pooling and a linear layer) and `cls` (the usual sequence-classification
    head) for encoders, `answer` (the logit of the answer's token) for decoders, are stock and load
    everywhere. `segments` starts as the bi-encoder that the backbone came from (`segments.py`) and
    ships with its own code. `keep` goes on from a folder that is a cross-encoder already.
    """

    lightning_module: ClassVar[str] = "zelo.training.cross_encoder_module.CrossEncoderModule"
    head: str = option(
        "mean", "what turns tokens into a score", pattern="^(mean|cls|answer|segments|keep)$"
    )
    answers: list[str] = option(
        ["yes", "no"],
        "tokens of the `answer` head: the score is the logit of the first, less the second's",
        min_length=1,
        max_length=2,
    )
    kind: str = option("cross-encoder", "what it is called in reports", exclude=True)

    @property
    def ranks_untrained(self) -> bool:
        """Not with a new head, which is drawn at random."""
        return self.head in ("answer", "segments", "keep")

    def network(self) -> Any:
        """A `sentence_transformers.CrossEncoder`, which cuts pairs as in training."""
        from zelo.models.cross_encoder import DEFAULT_SCALE, load_cross_encoder, new_cross_encoder
        from zelo.models.loading import limit

        folder = self.pretrained.locate()
        if self.head == "keep":
            model = load_cross_encoder(folder, self.attention)
        else:
            model = new_cross_encoder(
                folder, self.head, self.logit_scale or DEFAULT_SCALE, self.answers, self.attention
            )
        limit(model, folder, self.training_length)
        frame, room = model.preprocess([("", "")])["input_ids"].shape[1], model.max_seq_length
        if 2 * frame > room:
            raise UserError(
                f"model.max_length={room}: {frame} of them are the frame that this model puts "
                f"around query and document; give it more"
            )
        return self.told_how(model)

    def tokenized_inputs(self) -> type[CrossEncoderInputs]:
        """How it reads queries and documents."""
        from zelo.training.tokenized import CrossEncoderInputs

        return CrossEncoderInputs

    def cross_encoder_folder(self, folder: Path | None) -> Path | None:
        """Where one is ready: the trained one, or what training goes on from."""
        return folder or (self.pretrained.locate() if self.head == "keep" else None)

    def to_score(self, folder: Path | None) -> Any:
        """The model in `folder`, or the starting one: the cross-encoder or the decoder that
        training goes on from, or the embedding model that the backbone of a new head came from."""
        from zelo.models.cross_encoder import load_cross_encoder, new_cross_encoder
        from zelo.models.embedding import load_embedding_model
        from zelo.models.loading import limit

        ready = self.cross_encoder_folder(folder)
        if ready is not None:
            model = load_cross_encoder(ready)
            return model if folder else self.told_how(model)
        start = self.pretrained.locate()
        if self.head != "answer":
            return load_embedding_model(start, self.max_length)
        model = new_cross_encoder(start, self.head, answers=self.answers)
        limit(model, start, self.max_length)
        return self.told_how(model)
