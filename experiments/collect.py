"""Copy the results of a run folder into an experiment's folder, as CSV and PNG.

python experiments/collect.py outputs/runs/RUN experiments/NAME
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from matplotlib.figure import Figure

from zelo.artifacts import read_json
from zelo.reporting.results import comparisons_with_start, label, results


def main(run: Path, experiment: Path) -> None:
    stages = {
        stage["stage"]: Path(stage["path"]) for stage in read_json(run / "manifest.json")["stages"]
    }
    found = results(stages["evaluate"])
    with (experiment / "results.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["system", "metric", "value", "low", "high", "p_value"])
        for system, row in found.items():
            for metric, e in row.items():
                writer.writerow(
                    [system, metric, *(f"{x:.4f}" for x in (e.value, e.low, e.high)), ""]
                )
        for c in comparisons_with_start(stages["evaluate"]):
            d = c.difference
            numbers = [f"{x:.4f}" for x in (d.value, d.low, d.high, c.p_value)]
            writer.writerow(["zelo − start", c.metric, *numbers])
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    axes = figure.add_subplot()
    for row, estimates in enumerate(found.values()):
        e = estimates["NDCG@10"]
        axes.errorbar(
            e.value, row, xerr=[[e.value - e.low], [e.high - e.value]], fmt="o", capsize=3
        )
    axes.set_yticks(range(len(found)), [label(system) for system in found])
    axes.invert_yaxis()
    axes.set_xlabel("NDCG@10, 95 % interval")
    figure.savefig(experiment / "ndcg.png", dpi=130)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
