"""What a model is to the stages that train it, ship it and score with it (`conf/model/`)."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import field_validator

from zelo.config import option
from zelo.models.fine_tuned import FineTuned
from zelo.models.instructions import INSTRUCTION, NONE, RECORDED

if TYPE_CHECKING:
    from zelo.distributed.trainer import LightningTrainer
    from zelo.training.base_module import ZeloModule
    from zelo.training.objectives import BaseObjective
    from zelo.training.options import TrainingOptions
    from zelo.training.tokenized import TokenizedInputs

MODEL = "model"  # folder of the trained model within the stage's output


class TrainableModel(FineTuned):
    """A model that can be trained on ratings: options that all have, and what one is asked for.

    A subclass names its LightningModule and has the three methods below that raise here.
    """

    # Import path of the LightningModule that trains it, which is built from the component, `loss`,
    # `training` and `seed`. It imports the component, which therefore cannot import it.
    lightning_module: ClassVar[str]

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
    instruction_template: str | None = option(
        None,
        "how an instruction goes before a query: `Instruct: {instruction}\\nQuery: `; null: where "
        "the model's own prompt has a place for it; nowhere if it has none",
        added=True,
    )
    attention: str | None = option(
        None, "transformers' attn_implementation; null: its choice", exclude=True
    )
    batch_size: int = option(64, "texts scored at once", ge=1, exclude=True)
    kind: str = option("model", "what it is called in reports", exclude=True)

    @field_validator("instruction_template")
    @classmethod
    def _has_a_place(cls, template: str | None) -> str | None:
        if template is not None and INSTRUCTION not in template:
            raise ValueError(f"it has no {INSTRUCTION} in it")
        return template

    def told_how(self, network: Any) -> Any:
        """A sentence-transformers model that knows how it is told instructions, wherever it is
        loaded."""
        if self.instruction_template is not None:
            network.prompts = {**network.prompts, RECORDED: self.instruction_template}
        return network

    @property
    def training_length(self) -> int:
        """Tokens at which texts are cut in training."""
        return self.train_max_length or self.max_length

    @property
    def ranks_untrained(self) -> bool:
        """Whether it ranks before it has learned: without a new head, or with one that starts as
        what it came from."""
        return True

    def network(self) -> Any:
        """The sentence-transformers model that is trained, which also says how texts are read."""
        raise NotImplementedError

    def tokenized_inputs(self) -> type[TokenizedInputs]:
        """How it reads queries and documents."""
        raise NotImplementedError

    def module(
        self, objective: BaseObjective, training: TrainingOptions, seed: int = 0
    ) -> ZeloModule:
        """The LightningModule that trains it; new parameters are drawn by `seed`."""
        file, _, name = self.lightning_module.rpartition(".")
        cls = getattr(importlib.import_module(file), name)
        module: ZeloModule = cls(self, loss=objective, training=training, seed=seed)
        return module

    def to_score(self, folder: Path | None) -> Any:
        """The model in `folder`, loaded to give scores; None: the one that training starts from."""
        raise NotImplementedError

    def cross_encoder_folder(self, folder: Path | None) -> Path | None:
        """Where the cross-encoder lies that gives scores, for many devices to load; None: what
        gives them is none, or lies in no folder."""
        return None

    def score(
        self,
        folder: Path | None,
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        candidates: Mapping[str, Sequence[str]],
        out: Path,
        trainer: LightningTrainer,
        max_tokens_per_forward: int | None = None,
        instructions: Mapping[str, str] = NONE,
    ) -> dict[str, list[float]]:
        """Scores of each query's candidates by the model in `folder`, None: the starting model.

        Queries may have `instructions`, by their ids. Pairs are read on all of the trainer's
        devices, at most so many tokens at once on each, padding included; what is under way lies in
        `out`.
        """
        from zelo.models.cross_encoder import load_cross_encoder
        from zelo.models.loading import without_weights
        from zelo.models.scoring import by_query, score_candidates, score_on_devices, told_pairs

        tokens, shared = max_tokens_per_forward, self.cross_encoder_folder(folder)
        if shared is not None and trainer.processes > 1:
            under_way = out / ("scoring-start" if folder is None else "scoring-trained")
            reader = without_weights(lambda: load_cross_encoder(shared)) if instructions else None
            pairs, prompts = told_pairs(reader, queries, documents, candidates, instructions)
            scores = score_on_devices(shared, pairs, under_way, trainer, tokens, prompts)
            return by_query(candidates, scores)
        model = self.to_score(folder)
        return score_candidates(
            model, queries, documents, candidates, trainer, self.batch_size, tokens, instructions
        )
