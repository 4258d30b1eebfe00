"""Every test collection, first stage and model: the form of the paper's table of domains.

    python experiments/domains/run.py COLLECTIONS [NAME ...]

COLLECTIONS is a folder of collections in BEIR layout. For each, MiniLM as it starts and trained by
`zelo run` on judges that are simulated from its training labels; both rerank the first candidates
of BM25, of dense retrieval and of both fused. Writes results.csv and domains.png beside this file;
what is done already is not done again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from zelo.artifacts import read_json, write_csv
from zelo.evaluation.macro_average import against_baseline, read_evaluations, table_rows

HERE, OUT = Path(__file__).parent, Path("outputs") / "domains"
# Collection → domain, options of its training: about 60 steps of 4 queries. med and cacm have
# labels of test queries alone: half of these are trained on, the others tested
COLLECTIONS: dict[str, tuple[str, list[str], list[str]]] = {
    "scifact": ("STEM", [], []),
    "cranfield": ("STEM", [], ["training.max_epochs=2"]),
    "cacm": ("STEM", ["data.train_share=0.5"], ["training.max_epochs=8"]),
    "med": ("medical", ["data.train_share=0.5"], ["training.max_epochs=15"]),
    "cosqa": ("code", [], []),
    "cuad": ("legal", [], []),
}
RETRIEVERS = ("hybrid", "bm25", "dense")  # the first one's runs hold those of the others
DEPTH = 10  # candidates that are compared, trained on and reranked
TRAINING = [
    "stages=[load,retrieve,compare,judge,rate,train]", f"depth={DEPTH}", "training.batch_size=4",
    "training.max_steps=60", "training.validation_fraction=0",
    "training.docs_per_query=null", "training.frozen_layers=3", "training.optimizer.lr=2e-5",
    "model.max_length=128", "model.train_max_length=96",
]  # fmt: skip


def zelo(*arguments: str) -> None:
    """Run a command of zelo."""
    print("zelo", *arguments, flush=True)
    subprocess.run([str(Path(sys.executable).parent / "zelo"), *arguments], check=True)


def trained(name: str, data: list[str], options: list[str]) -> Path:
    """The model that zELO makes of MiniLM on a collection's training queries."""
    place = OUT / f"{name}-train"
    if not (place / "manifest.json").is_file():
        zelo("run", *data, *options, *TRAINING, f"hydra.run.dir={place}")
    stages = {s["stage"]: Path(s["path"]) for s in read_json(place / "manifest.json")["stages"]}
    return stages["train"] / "model"


def reranker(entrant: str, weights: str) -> str:
    """An override that adds an embedding model as a reranker."""
    return (
        f"+rerankers.{entrant}={{_target_:zelo.evaluation.rerankers.EmbeddingReranker,"
        f"pretrained:{weights},max_length:128}}"
    )


def main(collections: Path, names: list[str]) -> None:
    folders: dict[str, list[Path]] = {retriever: [] for retriever in RETRIEVERS}
    for name in names or COLLECTIONS:
        domain, options, training = COLLECTIONS[name]
        data = ["data=beir", f"data.path={collections / name}", *options]
        model = trained(name, data, training)
        for retriever in RETRIEVERS:
            out = OUT / f"{name}-{retriever}"
            if not (out / "evaluation.json").is_file():
                weights = f"{{_target_:zelo.models.pretrained.PretrainedModel,name:{model}}}"
                run = OUT / f"{name}-hybrid" / "runs" / f"{retriever}.trec"
                first = (
                    [f"retriever={retriever}"]
                    if retriever == "hybrid"
                    else ["retriever=run", f"retriever.path={run}", f"retriever.name={retriever}"]
                )
                zelo("evaluate", *data, *first, f"domain={domain}", f"depth={DEPTH}",
                     f"out={out}", reranker("start", "${pretrained}"),
                     reranker("zelo", weights))  # fmt: skip
            folders[retriever].append(out)
    lines: list[list[Any]] = []
    for retriever, evaluated in folders.items():
        read = read_evaluations(evaluated, "NDCG@10")
        for row in table_rows(read):
            for system in (retriever, "start", "zelo"):
                lines.append([retriever, row.kind, row.name, row.queries, system,
                              *(f"{x:.4f}" for x in row.values[system])])  # fmt: skip
        for v in against_baseline(read, "start"):
            if v.system == "zelo":
                print(f"{retriever}: zELO − start, average of collections: {v.difference:+.4f} "
                      f"[{v.low:+.4f}, {v.high:+.4f}], p = {v.p_value:.4f}")  # fmt: skip
    header = ["first stage", "kind", "name", "queries", "system", "NDCG@10", "low", "high"]
    write_csv(HERE / "results.csv", header, lines)
    print_table(lines)
    draw(lines)


def print_table(lines: list[list[Any]]) -> None:
    """The README's table."""
    value = {(line[2], line[0], line[4]): line[5] for line in lines}
    columns = [(r, s) for r in RETRIEVERS for s in (r, "start", "zelo")]
    print("|  | queries |", " | ".join(s if s == r else f"+ {s}" for r, s in columns), "|")
    print("|---" * (len(columns) + 2) + "|")
    for name, queries in dict.fromkeys((line[2], line[3]) for line in lines):
        cells = [f"{float(value[name, r, s]):.3f}" for r, s in columns]
        print(f"| {name} | {queries} |", " | ".join(cells), "|")


def draw(lines: list[list[Any]]) -> None:
    """NDCG@10 by domain, a panel for each first stage."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    panels = figure.subplots(1, len(RETRIEVERS), sharey=True)
    for axes, retriever in zip(panels, RETRIEVERS, strict=True):
        of = [line for line in lines if line[0] == retriever and line[1] != "collection"]
        names = list(dict.fromkeys(line[2] for line in of))
        for shift, system in enumerate((retriever, "start", "zelo")):
            value, low, high = np.array(
                [[float(x) for x in line[5:8]] for line in of if line[4] == system]
            ).T
            at = np.arange(len(names)) + 0.22 * (shift - 1)
            name = {"start": "+ MiniLM", "zelo": "+ MiniLM by zELO"}.get(system, "first stage")
            axes.errorbar(at, value, [value - low, high - value], fmt="o", capsize=2, label=name)
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
        axes.set_title(retriever)
    panels[0].set_ylabel("NDCG@10")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(HERE / "domains.png", dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("collections", type=Path)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    main(given.collections, given.names)
