"""What tests of training share: a few rated queries, and data modules as the stage makes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zelo.models.biencoder import BiEncoder
from zelo.models.pretrained import PretrainedModel
from zelo.training.batches import ScoredDataModule
from zelo.training.lessons import RatedQuery
from zelo.training.objectives import CentredMSE

DOCUMENTS = {
    f"d{i}": f"document number {i} about {w}"
    for i, w in enumerate(["sun", "moon", "sea", "rain", "snow"])
}


def rated(n: int = 9) -> list[RatedQuery]:
    """Queries q0, q1, ... with two to five of the documents."""
    rng = np.random.default_rng(0)
    return [
        RatedQuery(
            f"q{q}",
            ids := rng.permutation(list(DOCUMENTS))[: 2 + q % 4].tolist(),
            rng.normal(size=len(ids)).tolist(),
            judged=[(i, j, float(rng.uniform())) for i in range(len(ids)) for j in range(i)],
        )
        for q in range(n)
    ]


def bi_encoder(folder: Path, **options: Any) -> BiEncoder:
    """An embedding model."""
    return BiEncoder(pretrained=PretrainedModel(name=str(folder)), **options)


def lessons(
    module: Any,
    out: Path,
    queries: Sequence[RatedQuery],
    batch: int,
    candidates: int | None = None,
    seed: int = 0,
    held_out: Sequence[RatedQuery] = (),
    parts: int = 1,
    budget: int = 64,
    documents: dict[str, str] = DOCUMENTS,
    texts: dict[str, str] | None = None,
) -> ScoredDataModule:
    """A data module of `queries`, whose texts are tokenised below `out`."""
    everything = [*queries, *held_out]
    texts = texts or {q.query_id: f"query {q.query_id[1:]}" for q in everything}
    module.reader.tokenize(module.model, everything, texts, documents, out)
    size = getattr(module, "objective", CentredMSE()).size
    reader = module.reader.open(module.model, everything, out, budget)
    return ScoredDataModule(queries, reader, batch, candidates, seed, size, held_out, parts)
