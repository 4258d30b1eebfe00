"""Stage `train`: ratings in, a reranker or an embedding model out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from zelo.artifacts import read_json, write_json
from zelo.data.texts import distinct_instructions
from zelo.distributed.ranks import on_devices, this_process
from zelo.distributed.trainer import LightningTrainer
from zelo.progress import say
from zelo.store import stage
from zelo.training.by_size import by_size, left_open, sizes_of
from zelo.training.never_worse import START, TRAINED, UNPROVEN, Shipped, choose, read_values
from zelo.training.objectives import BaseObjective
from zelo.training.options import TrainingOptions
from zelo.training.trainable import MODEL, TrainableModel

if TYPE_CHECKING:
    from zelo.training.base_module import ZeloModule
    from zelo.training.thurstone_data_module import ThurstoneDataModule

HELD_OUT = "held_out.json"
SETTINGS = "settings.json"


@stage(version=10)
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

    With `training.never_worse` that is the starting model where no checkpoint is surely better on
    the held-out queries; the best of them then lies in `out/unproven`. `held_out.json` has the ids
    of these queries, `settings.json` what became of options that were left open. `judgments` are
    what objectives that learn from comparisons read.

    Where all queries of the collection have the same instruction, that is what the exported model
    reads them under unless it is told another one.
    """
    from zelo.models.instructions import ship_with, template_of
    from zelo.training.checkpoints import CHECKPOINTS, TOKENS, WATCHED, drop_damaged
    from zelo.training.fit import clear_up, load_fitted, save, told
    from zelo.training.thurstone_data_module import ThurstoneDataModule

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
        source_is_positive=objective.source_is_positive,
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
    fitted = load_fitted(module, out)
    scale = module.logit_scale
    values = read_values(out / CHECKPOINTS)
    shipped = (
        choose(values, fitted["best_step"], seed)
        if 0 in values
        else Shipped(TRAINED, unasked(model, training))
    )
    instructions = distinct_instructions(data)
    common = instructions[0] if len(instructions) == 1 else None
    template = template_of(module.model) if any(instructions) else None
    if common:
        ship_with(module.model, common)
    if shipped.what == START:
        save(module, out / UNPROVEN)
        del module, trained  # no two models at once
        # Adapters would change nothing of it.
        start = model.model_copy(update={"lora": None}).module(objective, training, seed)
        start.on_load_checkpoint({"logit_scale": scale})
        if common:
            ship_with(start.model, common)
        save(start, out / MODEL)
    else:
        save(module, out / MODEL)
    clear_up(out)
    found = told(fitted)
    if settings := read_json(out / SETTINGS):
        found["by_size"] = settings
    if shipped.what == START:
        found |= {WATCHED: round(mean(values[0].values()), 4), "best_step": 0}
    return {
        **found,
        **shipped.counts(),
        **({} if scale is None else {"logit_scale": round(scale, 3)}),
        **({"instruction_template": template} if any(instructions) else {}),
    }


def unasked(model: TrainableModel, training: TrainingOptions) -> str:
    """Why what was trained ships without having been held against the start."""
    if not training.never_worse:
        return "training.never_worse=false"
    if not model.ranks_untrained:
        return "its new head ranks nothing before it has learned"
    return "no query was held out"


def settled(training: TrainingOptions, data: ThurstoneDataModule, out: Path) -> TrainingOptions:
    """`training` with nothing left open, which is said and written down."""
    layers, width = sizes_of(data.network[0].model)
    adapters = data.model.lora is not None
    chosen = by_size(training, data.steps_per_epoch, layers, width, adapters)
    found = left_open(training, chosen)
    if this_process().rank == 0:
        write_json(out / SETTINGS, found)
        if found:
            options = ", ".join(f"training.{name}={value}" for name, value in found.items())
            queries = len(data.dataset.train)
            say(f"training: {options}, by {queries:,} queries and a model of {layers} layers")
    return chosen


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
    from zelo.training.fit import fit
    from zelo.training.thurstone_data_module import ThurstoneDataModule

    data = ThurstoneDataModule(**batches)
    training = settled(training, data, out)
    module = model.module(objective, training, seed)
    held_out = [query.query_id for query in data.dataset.validation]
    if this_process().rank == 0:
        write_json(out / HELD_OUT, held_out)
        if not held_out and training.never_worse:
            say(
                f"training: none of {len(data.dataset.all):,} queries held out: what is trained "
                f"ships, better or not"
            )
        if objective.source_is_positive:
            known = sum(query.positive is not None for query in data.dataset.train)
            say(
                f"training: {known:,} queries have the document that they were written from as "
                f"their positive, whatever judges say of it"
            )
    compared = training.never_worse and model.ranks_untrained
    fit(module, data, out, training, trainer, logger("train"), "training", compared)
    return module
