"""Stage `distil`: the ensemble's judgments in, a pairwise reranker that stands in for it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zelo.artifacts import read_table
from zelo.config import Component, option
from zelo.data.texts import document_texts, query_texts
from zelo.errors import UserError
from zelo.judging.ensemble import average
from zelo.models.weights import Weights
from zelo.store import stage
from zelo.training.options import LightningTrainer, TrainingOptions
from zelo.training.train import MODEL


class PairwiseModel(Component):
    """The pairwise cross-encoder that learns from the ensemble (METHOD, stage 3)."""

    weights: Weights = option(help="encoder to start from")
    max_query_tokens: int = option(48, "longer queries are cut here", ge=4)
    max_tokens: int = option(192, "query and both documents together", ge=16)
    scale: float = option(6.0, "factor of the cosines in the head", gt=0)


@stage(version=1)
def distil(
    *,
    out: Path,
    data: Path,
    judgments: Path,
    model: PairwiseModel,
    training: TrainingOptions,
    trainer: LightningTrainer,
    vote: str,
    seed: int,
    logger: Callable[[str], Any],
) -> Mapping[str, Any]:
    """Train `R_pair` on soft preferences and write it to `out/model`."""
    import torch

    from zelo.models.pairwise import PairwiseReranker
    from zelo.training.batches import PairwiseDataModule
    from zelo.training.fit import fit
    from zelo.training.modules import PairwiseModule

    if training.held_out:
        raise UserError("distil.training.held_out: only the model that is shipped is validated")
    said = average(read_table(judgments, "judgments"), vote)
    queries, documents = query_texts(data), document_texts(data, {*said.doc_a, *said.doc_b})
    triples = [
        (queries[q], documents[a], documents[b])
        for q, a, b in zip(said.query_ids, said.doc_a, said.doc_b, strict=True)
    ]
    if not triples:
        raise UserError("distil: the ensemble answered no comparison; there is nothing to learn")
    batches = PairwiseDataModule(
        list(zip(triples, said.p.tolist(), strict=True)), training.batch, seed
    )
    steps = training.steps(len(batches.loader))
    torch.manual_seed(seed)
    module = PairwiseModule(
        PairwiseReranker(
            model.weights.locate(), model.max_query_tokens, model.max_tokens, model.scale
        ),
        training,
        steps,
    )
    loss = fit(module, batches, out, steps, training, trainer, logger("distil"), "distilling")
    module.model.eval().save(out / MODEL)
    return {"pairs": len(triples), "steps": steps, "final_loss": round(loss, 6)}
