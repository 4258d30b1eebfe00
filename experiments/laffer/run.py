"""How good should a hard-negative miner be, where positives are incomplete? (the paper's figure 1)

    python experiments/laffer/run.py [OVERRIDE ...]

Trains an embedding model on (query, labelled document, mined negative) for miners of rising
quality, and by zELO on the same queries; overrides are for all of them. Writes results.csv and
laffer.png beside this file; what is done already is not done again.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from zelo.artifacts import read_json, read_table, table, write_csv, write_table
from zelo.data.texts import relevance_grades
from zelo.evaluation.evaluate import evaluate
from zelo.evaluation.fuse import fuse
from zelo.evaluation.metrics import evaluate_rankings
from zelo.launch import composed
from zelo.reporting.results import comparisons_with_start, results
from zelo.retrieval.ranking import candidates_from
from zelo.seeding import stream
from zelo.training.loggers import Csv, Tracking
from zelo.training.train import train

HERE, OUT = Path(__file__).parent, Path("outputs") / "laffer"
DATA = ["experiment=quickstart", "data.documents=1200", "data.train_queries=400",
        "data.dev_queries=100", "top_k=30", "model.max_length=64",
        "training.validation_fraction=0"]  # fmt: skip
POOL = 30  # candidates that a miner chooses from
UNLABELLED = (0.0, 0.5)  # share of the training queries whose relevant document has no label
QUALITY = (0.0, 0.5, 0.8, 0.95, 1.0)  # correlation of a miner's scores with the truth
# zELO reads 4 queries × 8 documents a step; 16 queries × 2 documents are as many, as often
CONTRASTIVE = [
    "objective=infonce",
    "training.batch_size=16",
    "training.max_epochs=4",
    "model.logit_scale=20",
]
HEADER = ["arm", "unlabelled", "quality", "miner NDCG@10", "relevant negatives", "NDCG@10",
          "low", "high", "gain", "gain low", "gain high", "p"]  # fmt: skip


def run(name: str, *options: str) -> dict[str, Path]:
    """A run's stages → their folders."""
    folder = OUT / name
    if not (folder / "manifest.json").is_file():
        words = ["run", *DATA, *options, f"hydra.run.dir={folder}"]
        subprocess.run([str(Path(sys.executable).parent / "zelo"), *words], check=True)
    stages = read_json(folder / "manifest.json")["stages"]
    return {stage["stage"]: Path(stage["path"]) for stage in stages}


def labels(at: dict[str, Path], share: float) -> dict[str, str]:
    """The labelled document of each training query.

    For a `share` of them it is not the relevant one but the first other candidate, as where an
    annotator saw a few results of a first stage and not the best answer there is.
    """
    grades = relevance_grades(at["load"], "train")
    pool = candidates_from(read_table(at["retrieve"], "candidates"))
    found = {}
    for query_id, row in grades.items():
        relevant = max(row, key=lambda doc_id: row[doc_id])
        hidden = stream(0, "unlabelled", query_id).random() < share
        others = [doc_id for doc_id in pool[query_id] if doc_id != relevant]
        found[query_id] = others[0] if hidden else relevant
    return found


def mined(truth: dict[str, dict[str, float]], quality: float) -> dict[str, list[str]]:
    """A miner's ranking of each query's candidates: noise that correlates with the truth."""
    found = {}
    for query_id, elo in truth.items():
        value = np.array(list(elo.values()))
        value = (value - value.mean()) / value.std()
        noise = stream(0, "miner", query_id).normal(size=len(value))
        score = quality * value + np.sqrt(1 - quality**2) * noise
        found[query_id] = [list(elo)[i] for i in np.argsort(-score)]
    return found


def contrastive(
    at: dict[str, Path], out: Path, labelled: dict[str, str], ranking: dict[str, list[str]]
) -> Path:
    """Train on (query, labelled, first other of the miner) and evaluate; where metrics lie."""
    rows = [
        (query_id, doc_id, value)
        for query_id, positive in labelled.items()
        for doc_id, value in (
            (positive, 1.0),
            (next(d for d in ranking[query_id] if d != positive), -1.0),
        )
    ]
    asked: Any = composed("config", [*DATA, *CONTRASTIVE])
    for name in ("ratings", "train", "fuse", "evaluate"):
        (out / name).mkdir(parents=True, exist_ok=True)
    q, d, value = map(list, zip(*rows, strict=True))
    write_table(out / "ratings", "ratings", table(
        "ratings", query_id=q, doc_id=d, elo=value, stderr=[0.0] * len(q), target=value,
    ))  # fmt: skip
    if not (out / "evaluate" / "metrics.parquet").is_file():
        train(
            out=out / "train", data=at["load"], ratings=out / "ratings", model=asked.model,
            objective=asked.objective, training=asked.training, trainer=asked.trainer, seed=0,
            logger=Tracking(tracker=Csv(), folder=out),
        )  # fmt: skip
        shared = {
            "data": at["load"], "candidates": at["retrieve"], "trained": out / "train",
            "model": asked.model, "trainer": asked.trainer,
            "tokens": asked.trainer.max_tokens_per_forward(None),
        }  # fmt: skip
        fuse(out=out / "fuse", ratings=out / "ratings", **shared)
        evaluate(out=out / "evaluate", fusion=out / "fuse", evaluation=asked.evaluation, seed=0,
                 **shared)  # fmt: skip
    return out / "evaluate"


def row(
    arm: str, share: float, quality: float, miner: float, hit: float, metrics: Path
) -> list[Any]:
    """A line of results.csv."""
    ndcg = results(metrics)["zelo"]["NDCG@10"]
    (gain,) = [c for c in comparisons_with_start(metrics) if c.metric == "NDCG@10"]
    numbers = (ndcg.value, ndcg.low, ndcg.high, gain.difference.value, gain.difference.low,
               gain.difference.high, gain.p_value)  # fmt: skip
    return [arm, share, quality, f"{miner:.4f}", f"{hit:.4f}", *(f"{x:.4f}" for x in numbers)]


def main() -> None:
    at = run("zelo")  # eight candidates compared, as in the quickstart
    start = results(at["evaluate"])["start"]["NDCG@10"]
    print(f"start {start.value:.4f} [{start.low:.4f}, {start.high:.4f}]")
    lines = [row("zelo", float("nan"), float("nan"), float("nan"), float("nan"), at["evaluate"])]
    # What is true of all candidates: the same judges, asked about every candidate. Students of the
    # miners never see it
    dense = run("truth", f"depth={POOL}", "sampler.cycles=8",
                "stages=[load,retrieve,compare,judge,rate]")  # fmt: skip
    truth: dict[str, dict[str, float]] = {}
    for r in read_table(dense["rate"], "ratings").to_pylist():
        truth.setdefault(r["query_id"], {})[r["doc_id"]] = r["elo"]
    grades = relevance_grades(at["load"], "train")
    for share in UNLABELLED:
        labelled = labels(at, share)
        for quality in QUALITY:
            ranking = mined(truth, quality)
            miner = evaluate_rankings(ranking, grades, ["NDCG@10"])["NDCG@10"].mean()
            negatives = {q: next(d for d in ranking[q] if d != labelled[q]) for q in ranking}
            hit = float(np.mean([grades[q].get(d, 0) > 0 for q, d in negatives.items()]))
            metrics = contrastive(at, OUT / f"{share}-{quality}", labelled, ranking)
            lines.append(row("contrastive", share, quality, miner, hit, metrics))
            print(*lines[-1], flush=True)
    write_csv(HERE / "results.csv", HEADER, lines)
    draw(lines, start.value)


def draw(lines: list[list[Any]], start: float) -> None:
    """The curve, with the line to beat."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.add_subplot()
    for share, color in zip(UNLABELLED, ("#8c959f", "#cf222e"), strict=True):
        points = np.array([[float(x) for x in line[3:8]] for line in lines if line[1] == share])
        miner, _, value, low, high = points.T
        name = f"contrastive, {share:.0%} of the relevant documents unlabelled"
        off = [value - low, high - value]
        axes.errorbar(miner, value, off, fmt="o-", capsize=3, color=color, label=name)
    _, _, _, _, _, value, low, high, *_ = lines[0]
    axes.axhline(float(value), color="#0969da", label="zELO, no labels")
    axes.axhspan(float(low), float(high), color="#0969da", alpha=0.12)
    axes.axhline(start, color="#24292f", linestyle=":", label="starting model")
    axes.set(xlabel="quality of the miner: NDCG@10 of its ranking", ylabel="student's NDCG@10")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(HERE / "laffer.png", dpi=150)


if __name__ == "__main__":
    DATA += sys.argv[1:]
    main()
