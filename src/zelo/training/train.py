"""Stage `train`: ratings in, a reranker or an embedding model out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from zelo.artifacts import read_table
from zelo.data.collection import hash_share
from zelo.data.texts import document_texts, query_texts
from zelo.errors import UserError
from zelo.models.weights import Weights
from zelo.seeding import stream
from zelo.store import stage
from zelo.training.objectives import Objective
from zelo.training.options import LightningTrainer, TrainingOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zelo.training.batches import RatedQuery

MODEL = "model"  # folder of the trained model within the stage's output
MATCHED = 32  # queries that the scale is matched on


@runtime_checkable
class Model(Protocol):
    """A model that can be trained on ratings (`conf/model/`)."""

    kind: str
    weights: Weights
    scale: float | None  # factor of the cosine; None is matched to the targets

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
    ) -> dict[str, list[float]]:
        """Scores of each query's candidates by the model in `folder`, None: the starting model."""
        ...


@stage(version=2)
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
) -> Mapping[str, Any]:
    """Train `model` on the targets and export it to `out/model`."""
    import torch

    from zelo.training.batches import ScoredDataModule
    from zelo.training.fit import fit, validate

    rated = read_rated(data, ratings)
    if not rated:
        raise UserError(
            "train: no training query has two rated documents; more candidates per query, or "
            "judges that answer, are needed"
        )
    texts = document_texts(data, {doc_id for query in rated for doc_id in query.doc_ids})
    held_out = [query for query in rated if hash_share(query.query) < training.held_out]
    rated = [query for query in rated if hash_share(query.query) >= training.held_out]
    if not rated or (training.held_out and not held_out):
        missing = "train on" if not rated else "validate on"
        raise UserError(
            f"training.held_out={training.held_out}: of {len(rated) + len(held_out)} rated queries "
            f"none is left to {missing}"
        )
    batches = ScoredDataModule(rated, texts, training.batch, training.candidates, seed, held_out)
    steps = training.steps(len(batches.loader))
    torch.manual_seed(seed)
    module = model.module(objective, training, steps)
    if model.scale is None and objective.level_free:
        rng = stream(seed, "scale")
        some = [rated[i] for i in rng.permutation(len(rated))[:MATCHED]]
        parts = range(0, len(some), training.batch)
        module.to_match = [batches.collate(some[i : i + training.batch], rng) for i in parts]
    loss = fit(module, batches, out, steps, training, trainer, logger("train"), "training")
    validated = validate(module, batches, trainer) if held_out else {}
    model.export(module.eval(), out / MODEL)
    return {
        "queries": len(rated),
        "targets": sum(len(query.doc_ids) for query in rated),
        "steps": steps,
        "final_loss": round(loss, 6),
        **({"scale": round(module.cosine_scale, 3)} if module.cosine_scale else {}),
        **({"held_out": len(held_out)} | validated if held_out else {}),
    }


def read_rated(data: Path, ratings: Path) -> list[RatedQuery]:
    """Training queries with at least two rated documents, in the order of the collection."""
    from zelo.training.batches import RatedQuery

    targets: dict[str, dict[str, float]] = {}
    rows = read_table(ratings, "ratings")
    for query_id, doc_id, target in zip(
        *(rows[name].to_pylist() for name in ("query_id", "doc_id", "target")), strict=True
    ):
        targets.setdefault(query_id, {})[doc_id] = target
    return [
        RatedQuery(text, list(targets[query_id]), list(targets[query_id].values()))
        for query_id, text in query_texts(data, "train").items()
        if len(targets.get(query_id, {})) > 1
    ]
