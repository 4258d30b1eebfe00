"""Do scores mean the same for every query? Elos before and after the cross-query bias, and
thresholds on the scores of first stages.

    python experiments/calibration/run.py COLLECTIONS

COLLECTIONS is a folder of collections in BEIR layout. Writes elos.csv, thresholds.csv and
reliability.png beside this file.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit

from zelo.artifacts import read_json, read_table
from zelo.data.texts import query_texts, relevance_grades
from zelo.evaluation.calibration import Pairs, Reliability, fit_probability, reliability
from zelo.rating.query_bias import fit_query_biases
from zelo.retrieval.ranking import candidates_from
from zelo.seeding import stream

HERE, OUT = Path(__file__).parent, Path("outputs") / "calibration"
NAMES = ("cranfield", "scifact", "cosqa", "cuad")  # those with labels of training and dev queries
DEPTH = 20  # candidates that a threshold is chosen on
CYCLES = 8  # of cross-query comparisons: each query is in 2 · CYCLES of them
RATED = 10  # candidates that are compared and rated
JUDGES = 3
# What judges see: GAIN · grade and, the same for every judge, how far a text seems from its label
GAIN, SEEMING = 2.0, 1.0


def zelo(*arguments: str) -> None:
    """Run a command of zelo."""
    print("zelo", *arguments, flush=True)
    subprocess.run([str(Path(sys.executable).parent / "zelo"), *arguments], check=True)


def elos_before_and_after(collection: Path) -> dict[str, Reliability]:
    """Reliability of Elos of training queries, and of Elos with their query's bias added."""
    run = OUT / collection.name
    data = ["data=beir", f"data.path={collection}", f"hydra.run.dir={run}"]
    zelo("run", *data, "stages=[load,retrieve]")
    at = stages(run)
    grades = relevance_grades(at["load"], "train")
    seen = what_judges_see(at["retrieve"], query_texts(at["load"], "train"), grades)
    planted = run / "planted.jsonl"
    planted.write_text("".join(
        json.dumps({"query_id": q, "doc_id": d, "score": score}) + "\n"
        for (q, d), score in seen.items()
    ))  # fmt: skip
    zelo("run", *data, f"depth={RATED}", "stages=[load,retrieve,compare,judge,rate]",
         "judge=planted", f"judge.judges.first.view.path={planted}")  # fmt: skip
    at = stages(run)
    rated: dict[str, dict[str, float]] = {}
    for row in read_table(at["rate"], "ratings").to_pylist():
        rated.setdefault(row["query_id"], {})[row["doc_id"]] = row["elo"]
    bias = query_biases(rated, seen)
    raised = {q: {d: e + bias[q] for d, e in elos.items()} for q, elos in rated.items()}
    found = {}
    for name, scores in (("Elo", rated), ("Elo + level", raised)):
        rankings = {q: list(elos.items()) for q, elos in scores.items()}
        half = list(rankings)[::2], list(rankings)[1::2]
        chosen, tested = ({q: rankings[q] for q in part} for part in half)
        probability = fit_probability(Pairs.of(chosen, grades))
        found[name] = reliability(Pairs.of(tested, grades), probability)
    return found


def stages(run: Path) -> dict[str, Path]:
    """Stage → folder, of a run."""
    return {s["stage"]: Path(s["path"]) for s in read_json(run / "manifest.json")["stages"]}


def what_judges_see(
    candidates: Path, queries: Mapping[str, str], grades: Mapping[str, Mapping[str, int]]
) -> dict[tuple[str, str], float]:
    """Hidden score of every candidate that is compared."""
    rng = stream(0, "what judges see")
    pool = candidates_from(read_table(candidates, "candidates"))
    return {
        (q, d): GAIN * grades.get(q, {}).get(d, 0) + rng.normal(0, SEEMING)
        for q in queries
        for d in pool[q][:RATED]
    }


def query_biases(
    rated: Mapping[str, Mapping[str, float]], seen: Mapping[tuple[str, str], float]
) -> dict[str, float]:
    """Bias of each query, from random cycles through all of them; of each, a random document.

    Judges answer as METHOD's noise model says.
    """
    rng = stream(0, "cross-query comparisons")
    docs = [list(elos) for elos in rated.values()]
    offsets = np.concatenate([[0], np.cumsum([len(d) for d in docs])])
    flat = np.concatenate([list(elos.values()) for elos in rated.values()])
    hidden = np.array([seen[q, d] for q, elos in rated.items() for d in elos])
    first, second = [], []
    for _ in range(CYCLES):
        order = rng.permutation(len(docs))
        for a, b in zip(order, np.roll(order, 1), strict=True):
            first.append(offsets[a] + rng.integers(len(docs[a])))
            second.append(offsets[b] + rng.integers(len(docs[b])))
    i, j = np.array(first), np.array(second)
    noise = rng.normal(0, 0.2, (JUDGES, len(i)))
    said = 0.98 * expit(hidden[i] - hidden[j] + noise) + 0.02 * rng.random(noise.shape)
    fitted = fit_query_biases(flat, offsets, i, j, said.mean(0))
    return dict(zip(rated, fitted.bias.tolist(), strict=True))


def main(collections: Path) -> None:
    elos = {name: elos_before_and_after(collections / name) for name in NAMES}
    with (HERE / "elos.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["collection", "score", "pairs", "relevant", "calibration_error", "brier",
                         "brier_of_rate", "auc", "auc_within"])  # fmt: skip
        for name, found in elos.items():
            for score, r in found.items():
                numbers = (r.rate, r.error, r.brier, r.brier_of_rate, r.auc, r.auc_within)
                writer.writerow([name, score, r.pairs, *(f"{x:.4f}" for x in numbers)])
    with (HERE / "thresholds.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["collection", "system", "threshold", "f1_dev", "f1_test", "f1_possible",
                         "precision", "recall", "kept_per_query", "queries_with_nothing",
                         "calibration_error", "auc", "auc_within"])  # fmt: skip
        for name in NAMES:
            out = OUT / f"{name}-thresholds"
            zelo("evaluate", "data=beir", f"data.path={collections / name}", "calibrate=dev",
                 f"depth={DEPTH}", f"out={out}")  # fmt: skip
            for row in read_json(out / "calibration.json"):
                kept, r = row["tested"], row["reliability"]
                numbers = (kept["threshold"], row["chosen"]["f1"], kept["f1"],
                           row["best_possible"]["f1"], kept["precision"], kept["recall"],
                           kept["kept_per_query"], kept["queries_with_nothing"], r["error"],
                           r["auc"], r["auc_within"])  # fmt: skip
                writer.writerow([name, row["system"], *(f"{x:.4f}" for x in numbers)])
    draw(elos)


def draw(elos: Mapping[str, Mapping[str, Reliability]]) -> None:
    """Reliability diagrams, one per collection."""
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    for axes, (name, found) in zip(figure.subplots(1, len(elos)), elos.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="gray", linewidth=0.8)
        for score, r in found.items():
            axes.plot(*zip(*r.curve, strict=True), marker="o", markersize=3, label=score)
        axes.set(title=name, xlabel="predicted probability")
    figure.axes[0].set_ylabel("share relevant")
    figure.axes[0].legend(fontsize=8)
    figure.savefig(HERE / "reliability.png", dpi=130)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("collections", type=Path)
    main(parser.parse_args().collections)
