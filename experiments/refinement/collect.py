"""Copy what a run's passes came to into this folder, as CSV and PNG.

python experiments/refinement/collect.py RUN
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure

from zelo.artifacts import read_json
from zelo.reporting.passes import Pass, passes
from zelo.reporting.results import results

HERE = Path(__file__).parent
MEASURES = {
    "agreement": "agreement with unanimous judges",
    "elo_mse": "squared error of Elos",
    "elo_tau": "Kendall's τ of Elos",
    "NDCG@10": "NDCG@10",
}


def main(run: Path) -> None:
    manifest = read_json(run / "manifest.json")
    made: dict[str, Path] = {}
    for stage in manifest["stages"]:
        name, _, number = stage["label"].partition(", pass ")
        if name in ("evaluate", "assess"):
            kind = {"evaluate": "metrics", "assess": "assessment"}[name]
            made[f"pass_{number}_{kind}"] = Path(stage["path"])
    found = passes(made, manifest["config"]["evaluation"]["resamples"], manifest["seed"])
    start = results(made["pass_1_metrics"])["start"]["NDCG@10"]
    rows = [["start", "NDCG@10", start.value, start.low, start.high]]
    for one in found:
        rows += [[f"pass {one.number}", name, e.value, e.low, e.high] for name, e in measured(one)]
        if one.gain is not None:
            d = one.gain
            rows.append([f"pass {one.number} − pass 1", d.metric, d.difference, d.low, d.high])
    with (HERE / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["what", "measure", "value", "low", "high"])
        writer.writerows([*row[:2], *(f"{x:.4f}" for x in row[2:])] for row in rows)
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, 4), MEASURES.items(), strict=True):
        for one in found:
            e = dict(measured(one))[name]
            off = [[e.value - e.low], [e.high - e.value]]
            axes.errorbar(one.number, e.value, off, fmt="o", capsize=4, color="#0969da")
        if name == "NDCG@10":
            axes.axhline(start.value, color="#24292f", linestyle=":", label="start")
            axes.legend(frameon=False)
        axes.set(xticks=[one.number for one in found], xlabel="pass", xlim=(0.5, len(found) + 0.5))
        axes.set_title(title, fontsize=7)
    figure.savefig(HERE / "passes.png", dpi=130)


def measured(one: Pass) -> list:
    """The measures of a pass that there are."""
    return [(n, e) for n, e in {**one.assessment, "NDCG@10": one.ndcg}.items() if e is not None]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
