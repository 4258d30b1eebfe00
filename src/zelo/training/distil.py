"""Stage `distil`: the ensemble's judgments in, a pairwise model that stands in for it out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zelo.data.texts import distinct_instructions
from zelo.distributed.ranks import on_devices
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.models.pairwise_model import BasePairwiseModel
from zelo.store import stage
from zelo.training.options import TrainingOptions

if TYPE_CHECKING:
    from zelo.training.pairwise_module import PairwiseModule


@stage(version=5)
def distil(
    *,
    out: Path,
    data: Path,
    model: BasePairwiseModel,
    training: TrainingOptions,
    trainer: LightningTrainer,
    vote: str,
    seed: int,
    logger: Callable[[str], Any],
    **judgments: Path,
) -> Mapping[str, Any]:
    """Train `R_pair` on soft preferences and write it to `out/model`.

    `judgments` are folders of the ensemble's answers, one for each time that it was asked.
    """
    from zelo.training.checkpoints import TOKENS, drop_damaged
    from zelo.training.fit import export
    from zelo.training.pairwise_data_module import PairwiseDataModule
    from zelo.training.pairwise_module import PairwiseModule

    refuse_validation(training)
    drop_damaged(out)
    batches = PairwiseDataModule(
        data,
        list(judgments.values()),
        model,
        vote=vote,
        batch_size=training.batch_size,
        max_tokens_per_forward=trainer.max_tokens_per_forward(training.max_tokens_per_forward),
        seed=seed,
        cache_dir=out / TOKENS,
    )
    if trainer.processes > 1:  # once, before ranks wait for one another
        batches.prepare_data()
    trained = on_devices(
        distil_on_ranks,
        out,
        trainer,
        batches=dict(batches.hparams),
        model=model,
        training=training,
        seed=seed,
        logger=logger,
    )
    return export(trained or PairwiseModule(model, training=training, seed=seed), out)


def distil_on_ranks(
    *,
    out: Path,
    trainer: LightningTrainer,
    batches: Mapping[str, Any],
    model: BasePairwiseModel,
    training: TrainingOptions,
    seed: int,
    logger: Callable[[str], Any],
) -> PairwiseModule:
    """Train as one of the trainer's ranks; `batches` are the options of the DataModule."""
    from zelo.training.fit import fit
    from zelo.training.pairwise_data_module import PairwiseDataModule
    from zelo.training.pairwise_module import PairwiseModule

    with of_distil():
        module = PairwiseModule(model, training=training, seed=seed)
        data = PairwiseDataModule(**batches)
        fit(module, data, out, training, trainer, logger("distil"), "distilling")
    return module


@contextmanager
def of_distil() -> Iterator[None]:
    """Have errors name the options of the group `distil`."""
    try:
        yield
    except UserError as error:
        line = re.sub(r"(?<![\w.])(training|model)\.(?=[a-z])", r"distil.\1.", str(error))
        raise UserError(line) from None


def refuse_instructions(data: Path) -> None:
    """`UserError` where queries of a collection have different instructions, which the pairwise
    model does not read: one that all have it learns from the answers."""
    found = distinct_instructions(data)
    if len(found) > 1:
        some = ", ".join("none" if told is None else repr(told[:40]) for told in found[:2])
        raise UserError(
            f"distil: the pairwise model reads no instructions, and queries have {len(found)} "
            f"different ones ({some}): choose distil=off, or give all queries the same"
        )


def refuse_validation(training: TrainingOptions) -> None:
    """`UserError` where some of what there is to learn from would be held out."""
    if training.validation_fraction:
        raise UserError(
            "distil.training.validation_fraction: only the model that is shipped is validated"
        )
