"""Stage `train`: ratings in, a reranker or an embedding model out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from zelo.artifacts import writing_below
from zelo.data.texts import document_texts, query_texts
from zelo.distributed.ranks import on_devices
from zelo.distributed.trainer import LightningTrainer
from zelo.models.pretrained import PretrainedModel
from zelo.seeding import stream
from zelo.store import stage
from zelo.training.lessons import Lessons
from zelo.training.objectives import Objective
from zelo.training.options import TrainingOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL = "model"  # folder of the trained model within the stage's output
MATCHED = 32  # queries that the scale is matched on


@runtime_checkable
class Model(Protocol):
    """A model that can be trained on ratings (`conf/model/`)."""

    kind: str
    pretrained: PretrainedModel
    logit_scale: float | None  # factor of the cosine; None is matched to the targets

    def module(self, objective: Objective, training: TrainingOptions, steps: int) -> Any:
        """Return the LightningModule that trains it."""
        ...

    def export(self, module: Any, folder: Path) -> None:
        """Write the folder that ships."""
        ...

    def score(
        self,
        folder: Path | None,
        queries: Mapping[str, str],
        documents: Mapping[str, str],
        candidates: Mapping[str, Sequence[str]],
        out: Path,
        trainer: LightningTrainer,
        tokens: int,
    ) -> dict[str, list[float]]:
        """Scores of each query's candidates by the model in `folder`, None: the starting model.

        On the trainer's devices where that is worth it, at most `tokens` at once on each, padding
        included; what is under way lies in `out`.
        """
        ...


@stage(version=5)
def train(
    *,
    out: Path,
    data: Path,
    ratings: Path,
    model: Model,
    objective: Objective,
    training: TrainingOptions,
    trainer: LightningTrainer,
    seed: int,
    logger: Callable[[str], Any],
    **judgments: Path,
) -> Mapping[str, Any]:
    """Train `model` on the targets and export it to `out/model`.

    `judgments` are what objectives that learn from comparisons read.
    """
    from zelo.training.checkpoints import CHECKPOINTS, drop_damaged
    from zelo.training.fit import load_fitted
    from zelo.training.readers import TOKENS

    drop_damaged(out, TOKENS)
    lessons = Lessons(data, ratings, judgments, training, objective)

    def module() -> Any:
        return seeded(model, objective, training, lessons.steps, seed)

    texts = document_texts(data, {i for query in lessons.all for i in query.doc_ids})
    reading = module()
    reading.reader.tokenize(reading.model, lessons.all, query_texts(data, "train"), texts, out)
    del texts, reading
    on_devices(
        learn,
        out,
        trainer,
        data=data,
        ratings=ratings,
        model=model,
        objective=objective,
        training=training,
        seed=seed,
        logger=logger,
        **judgments,
    )
    trained = module()
    fitted = load_fitted(trained, out)
    with writing_below(out / MODEL):
        model.export(trained.eval(), out / MODEL)
    for folder in (TOKENS, CHECKPOINTS):  # what is dear last
        shutil.rmtree(out / folder)
    held_out = {"held_out": len(lessons.held_out)} if lessons.held_out else {}
    return {
        "queries": len(lessons.rated),
        "targets": sum(len(query.doc_ids) for query in lessons.rated),
        "steps": lessons.steps,
        "final_loss": fitted["final_loss"],
        **({"scale": round(trained.cosine_scale, 3)} if trained.cosine_scale else {}),
        **held_out,
        **fitted["validated"],
    }


def learn(
    *,
    out: Path,
    data: Path,
    ratings: Path,
    model: Model,
    objective: Objective,
    training: TrainingOptions,
    trainer: LightningTrainer,
    seed: int,
    logger: Callable[[str], Any],
    **judgments: Path,
) -> None:
    """Train on this rank's share of what `train` tokenised."""
    from zelo.training.batches import ScoredDataModule
    from zelo.training.fit import fit

    lessons = Lessons(data, ratings, judgments, training, objective)
    module = seeded(model, objective, training, lessons.steps, seed)
    budget = trainer.max_tokens_per_forward(training.max_tokens_per_forward)
    batches = ScoredDataModule(
        lessons.rated,
        module.reader.open(
            module.model,
            lessons.all,
            out,
            budget,
        ),
        training.batch_size,
        training.docs_per_query,
        seed,
        objective.size,
        lessons.held_out,
        training.accumulate_grad_batches,
    )
    if model.logit_scale is None if objective.level_free else module.level is not None:
        rng = stream(seed, "scale")
        some = [lessons.rated[i] for i in rng.permutation(len(lessons.rated))[:MATCHED]]
        parts = range(0, len(some), training.batch_size)
        module.to_match = [batches.collate(some[i : i + training.batch_size], rng) for i in parts]
    fit(module, batches, out, lessons.steps, training, trainer, logger("train"), "training")


def seeded(
    model: Model, objective: Objective, training: TrainingOptions, steps: int, seed: int
) -> Any:
    """The LightningModule, whose new parameters are the same wherever it is made."""
    import torch

    torch.manual_seed(seed)
    return model.module(objective, training, steps)
