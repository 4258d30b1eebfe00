"""Stage `train`: ratings in, a reranker or an embedding model out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zelo.distributed.ranks import on_devices
from zelo.distributed.trainer import LightningTrainer
from zelo.store import stage
from zelo.training.objectives import BaseObjective
from zelo.training.options import TrainingOptions
from zelo.training.trainable import TrainableModel

if TYPE_CHECKING:
    from zelo.training.base_module import ZeloModule


@stage(version=6)
def train(
    *,
    out: Path,
    data: Path,
    ratings: Path,
    model: TrainableModel,
    objective: BaseObjective,
    training: TrainingOptions,
    trainer: LightningTrainer,
    seed: int,
    logger: Callable[[str], Any],
    **judgments: Path,
) -> Mapping[str, Any]:
    """Train `model` on the targets and export it to `out/model`.

    `judgments` are what objectives that learn from comparisons read.
    """
    from zelo.training.checkpoints import TOKENS, drop_damaged
    from zelo.training.data_modules import ThurstoneDataModule
    from zelo.training.fit import export

    drop_damaged(out)
    batches = ThurstoneDataModule(
        data,
        ratings,
        model,
        judgments=list(judgments.values()) if objective.reads_judgments else [],
        batch_size=training.batch_size,
        docs_per_query=training.docs_per_query,
        validation_fraction=training.validation_fraction,
        stderr_weights=training.stderr_weights,
        max_tokens_per_forward=trainer.max_tokens_per_forward(training.max_tokens_per_forward),
        seed=seed,
        cache_dir=out / TOKENS,
    )
    if trainer.processes > 1:  # once, before ranks wait for one another
        batches.prepare_data()
    trained = on_devices(
        train_on_ranks,
        out,
        trainer,
        batches=dict(batches.hparams),
        model=model,
        objective=objective,
        training=training,
        seed=seed,
        logger=logger,
    )
    module: ZeloModule = trained or model.module(objective, training, seed)
    fitted = export(module, out)
    scale = {} if module.logit_scale is None else {"logit_scale": round(module.logit_scale, 3)}
    return {**fitted, **scale}


def train_on_ranks(
    *,
    out: Path,
    trainer: LightningTrainer,
    batches: Mapping[str, Any],
    model: TrainableModel,
    objective: BaseObjective,
    training: TrainingOptions,
    seed: int,
    logger: Callable[[str], Any],
) -> ZeloModule:
    """Train as one of the trainer's ranks; `batches` are the options of the DataModule."""
    from zelo.training.data_modules import ThurstoneDataModule
    from zelo.training.fit import fit

    module = model.module(objective, training, seed)
    data = ThurstoneDataModule(**batches)
    fit(module, data, out, training, trainer, logger("train"), "training")
    return module
