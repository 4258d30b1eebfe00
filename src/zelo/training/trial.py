"""What trainings need, tried before anything is paid for: the same code, without the weights.

A model is built from its folder as `train` and `distil` build it, tokenizer, head, adapters and
frozen layers included, and tokenises a text; its weights are looked at and not loaded. What is not
tried is what depends on them or on the data: memory, and the loss.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from zelo.errors import UserError, in_words
from zelo.models.loading import trial
from zelo.models.pairwise_model import BasePairwiseModel
from zelo.training.distil import of_distil, refuse_validation
from zelo.training.trainable import TrainableModel

if TYPE_CHECKING:
    from zelo.distributed.trainer import LightningTrainer
    from zelo.training.objectives import BaseObjective
    from zelo.training.options import TrainingOptions

SOME = {"q": "a query"}, {"d": "a document"}


def try_training(
    model: TrainableModel,
    objective: BaseObjective,
    training: TrainingOptions,
    trainer: LightningTrainer,
) -> None:
    """`UserError` where `train` could not train this model with these options."""
    from zelo.training.rated_queries import RatedQuery
    from zelo.training.tokenized import RatedTexts

    rated = [RatedQuery("q", ["d"], [0.0])]
    with trial(model.pretrained.locate()), tempfile.TemporaryDirectory() as folder:
        module = model.module(objective, training)
        model.tokenized_inputs().write(module.model, RatedTexts(rated, *SOME), Path(folder))
    try_lightning(training, trainer)


def try_distilling(
    model: BasePairwiseModel, training: TrainingOptions, trainer: LightningTrainer
) -> None:
    """`UserError` where `distil` could not train this model with these options."""
    from zelo.training.pairwise_module import PairwiseModule

    refuse_validation(training)
    with of_distil(), trial(model.pretrained.locate()):
        module = PairwiseModule(model, training=training)
        module.model.encode([("a query", "a document", "another")])
    try_lightning(training, trainer)


def try_lightning(training: TrainingOptions, trainer: LightningTrainer) -> None:
    """`UserError` where Lightning, or what compiles a model, refuses the machine or the options."""
    import torch

    from zelo.models.layers import double
    from zelo.training.fit import build_trainer, quiet_lightning

    quiet_lightning()
    try:
        if training.compile:
            torch.compile(double)(torch.ones(2, device=trainer.device(0)))
        if trainer.processes == 1:  # of more, each builds its own
            with tempfile.TemporaryDirectory() as folder:
                build_trainer(trainer, Path(folder), 1, training, False, [])
    except Exception as error:
        which = "training.compile" if training.compile else "trainer"
        raise UserError(f"{which}: {in_words(error)}") from None
