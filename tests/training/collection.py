"""What tests of training share: a few rated queries, and data modules as the stage makes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import CSVLogger

from zelo.artifacts import table, write_table
from zelo.distributed.trainer import LightningTrainer
from zelo.models.pretrained import PretrainedModel
from zelo.training import fit as fitting
from zelo.training.base_module import ZeloModule
from zelo.training.bi_encoder import BiEncoder
from zelo.training.options import TrainingOptions
from zelo.training.pointwise import PointwiseModule
from zelo.training.rated_queries import RatedDataset, RatedQuery
from zelo.training.thurstone_data_module import ThurstoneDataModule

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


def data_module(
    module: PointwiseModule,
    out: Path,
    queries: Sequence[RatedQuery],
    batch_size: int,
    docs_per_query: int | None = None,
    seed: int = 0,
    held_out: Sequence[RatedQuery] = (),
    max_tokens_per_forward: int = 64,
    documents: dict[str, str] = DOCUMENTS,
    texts: dict[str, str] | None = None,
    instructions: dict[str, str] | None = None,
) -> ThurstoneDataModule:
    """Batches of `queries` as `module` reads them; the collection is written below `out`."""
    everything = [*queries, *held_out]
    texts = texts or {q.query_id: f"query {q.query_id[1:]}" for q in everything}
    folder = out / "collection"
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder, "queries", table("queries", query_id=list(texts),
                text=list(texts.values()), split=["train"] * len(texts),
                instruction=[(instructions or {}).get(q) for q in texts]))  # fmt: skip
    write_table(folder, "documents", table("documents", doc_id=list(documents),
                title=[""] * len(documents), text=list(documents.values())))  # fmt: skip
    write_table(folder, "ratings", table("ratings", query_id=[], doc_id=[], elo=[], stderr=[],
                target=[]))  # fmt: skip
    data = ThurstoneDataModule(
        folder,
        folder,
        module.component,
        batch_size=batch_size,
        docs_per_query=docs_per_query,
        max_tokens_per_forward=max_tokens_per_forward,
        seed=seed,
        cache_dir=out / "tokens",
    )
    data.dataset = RatedDataset(everything, list(queries), list(held_out))  # and not a file's
    data.prepare_data()
    data.setup()
    return data


def fit(
    module: ZeloModule, data: Any, out: Path, steps: int, training: TrainingOptions | None = None
) -> Path:
    """Train for so many steps as the stages do; the folder of Lightning's log."""
    logger = CSVLogger(out)
    options = (training or TrainingOptions()).model_copy(
        update={"max_steps": steps, "max_epochs": 1000}
    )
    fitting.fit(module, data, out, options, LightningTrainer(), logger, "training")
    logger.save()
    return Path(logger.log_dir)
