"""What a model is to the stages that train it, ship it and score with it (`conf/model/`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from zelo.config import Component, build, dump, option
from zelo.errors import UserError
from zelo.models.lora import Lora
from zelo.models.pretrained import PretrainedModel

if TYPE_CHECKING:
    from zelo.distributed.trainer import LightningTrainer
    from zelo.training.objectives import BaseObjective
    from zelo.training.options import TrainingOptions
    from zelo.training.pointwise import PointwiseModule
    from zelo.training.tokenized import TokenizedInputs

MODEL = "model"  # folder of the trained model within the stage's output


class StartsFromPretrained(Component):
    """Options of whatever is fine-tuned from a pretrained model."""

    pretrained: PretrainedModel = option(help="what training starts from")
    lora: Lora | None = option(None, "adapters in place of full fine-tuning")
    gradient_checkpointing: bool = option(
        False, "make activations anew in the backward pass: less memory, slower", exclude=True
    )

    @classmethod
    def of(cls, model: str | Path | Mapping[str, Any] | Self, **options: Any) -> Self:
        """A component by its hub name or folder, as it was dumped, or itself.

        `options` that are not None are set. Raises `UserError` where one is not right.
        """
        given = {name: value for name, value in options.items() if value is not None}
        if isinstance(model, str | Path):
            start = {"_target_": target_of(PretrainedModel), "name": str(model)}
            content: Any = {"_target_": target_of(cls), "pretrained": start}
        elif isinstance(model, Mapping):
            content = dict(model)
        elif not given:
            return model
        else:
            content = dump(model)
        built = build({**content, **given}, "model")
        if not isinstance(built, cls):
            raise UserError(f"model: {type(built).__name__} is no {cls.__name__}")
        return built


def target_of(cls: type) -> str:
    """Import path of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


class TrainableModel(StartsFromPretrained):
    """A model that can be trained on ratings: options that all have, and what one is asked for.

    A subclass has the four methods below.
    """

    max_length: int = option(256, "longer texts are cut here, in training and after", ge=8)
    train_max_length: int | None = option(
        None, "cut shorter than that in training, for speed", ge=8
    )
    logit_scale: float | None = option(
        None,
        "factor of the cosine that training compares with targets; null: so that the starting "
        "model's predictions spread as the targets do (6 where the objective fixes their level)",
        gt=0,
    )
    attention: str | None = option(
        None, "transformers' attn_implementation; null: its choice", exclude=True
    )
    batch_size: int = option(64, "texts scored at once", ge=1, exclude=True)
    kind: str = option("model", "what it is called in reports", exclude=True)

    def network(self) -> Any:
        """The sentence-transformers model that is trained, which also says how texts are read."""
        raise NotImplementedError

    def tokenized_inputs(self) -> type[TokenizedInputs]:
        """How it reads queries and documents."""
        raise NotImplementedError

    def module(
        self, objective: BaseObjective, training: TrainingOptions, seed: int = 0
    ) -> PointwiseModule:
        """The LightningModule that trains it; new parameters are drawn by `seed`."""
        raise NotImplementedError

    def score(
        self,
        folder: Path | None,
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        candidates: Mapping[str, Sequence[str]],
        out: Path,
        trainer: LightningTrainer,
        max_tokens_per_forward: int | None = None,
    ) -> dict[str, list[float]]:
        """Scores of each query's candidates by the model in `folder`, None: the starting model.

        On the trainer's devices where that is worth it, at most so many tokens at once on each,
        padding included; what is under way lies in `out`.
        """
        raise NotImplementedError
