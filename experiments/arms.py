"""Runs that differ in a few options, side by side, each against the reference or another of them.

    python experiments/arms.py experiments/judges/arms.yaml

The file names what all arms have in common, the seeds, each arm's options, and which arm others
are held against, the reference unless told apart (Holm's correction over all of these tests).
Results are means over seeds, query by query; intervals and tests are over queries. Writes a
CSV and a PNG of the file's name beside it; what is done already is not done again.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from zelo.artifacts import read_json, read_table, write_csv
from zelo.evaluation.evaluate import values_by_system
from zelo.evaluation.significance import Values, against, bootstrap_interval, holm
from zelo.seeding import stream

METRIC, RESAMPLES = "NDCG@10", 10_000
HEADER = ["arm", "calls per query", METRIC, "low", "high", "less", "difference", "difference low",
          "difference high", "p", "p corrected", "queries better", "queries worse"]  # fmt: skip


def run(place: Path, options: list[str]) -> dict[str, dict[str, Any]]:
    """The stages of a run, by label, from its manifest."""
    manifest = place / "manifest.json"
    if not manifest.is_file() or read_json(manifest)["status"] != "done":
        words = ["run", *options, f"hydra.run.dir={place}"]
        subprocess.run([str(Path(sys.executable).parent / "zelo"), *words], check=True)
    return {stage["label"]: stage for stage in read_json(manifest)["stages"]}


def main(file: Path) -> None:
    asked: Any = OmegaConf.to_container(OmegaConf.load(file))
    found: dict[tuple[str, str], Values] = {}
    calls = {"start": 0.0}
    for arm, options in asked["arms"].items():
        values = []
        for seed in asked["seeds"]:
            name = re.sub(r"[^a-z0-9]+", "-", arm.lower())
            place = Path("outputs") / file.parent.name / file.stem / f"{name}-{seed}"
            stages = run(place, [*asked["common"], *options, f"seed={seed}"])
            asked_for = [s["counts"]["judgments"] for s in stages.values() if s["stage"] == "judge"]
            calls[arm] = sum(asked_for) / stages["rate"]["counts"]["queries"]
            per_query = values_by_system(read_table(Path(stages["evaluate"]["path"]), "per_query"))
            found["start", METRIC] = per_query["start", METRIC]
            values.append(per_query["zelo", METRIC])
        found[arm, METRIC] = np.mean(values, axis=0)
        print(f"{arm}: {found[arm, METRIC].mean():.4f}", flush=True)
    reference, arms = asked["reference"], ["start", *asked["arms"]]
    others = {arm: asked["against"].get(arm, reference) for arm in arms if arm != reference}
    tests = [against(found, other, [arm], RESAMPLES, 0)[0] for arm, other in others.items()]
    corrected = dict(zip(others, holm([test.p_value for test in tests]), strict=True))
    by_arm = {test.system: test for test in tests}
    lines: list[list[Any]] = []
    for arm in arms:
        value = found[arm, METRIC]
        low, high = bootstrap_interval(value, stream(0, "interval", arm), RESAMPLES)
        line = [arm, f"{calls[arm]:.0f}", *(f"{x:.4f}" for x in (value.mean(), low, high))]
        if arm in by_arm:
            t = by_arm[arm]
            numbers = (t.difference, t.low, t.high, t.p_value, corrected[arm])
            line += [t.baseline, *(f"{x:.4f}" for x in numbers), t.wins, t.losses]
        lines.append(line + [""] * (len(HEADER) - len(line)))
    write_csv(file.with_suffix(".csv"), HEADER, lines)
    print_table(lines)
    draw(lines, file.with_suffix(".png"))


def print_table(lines: list[list[Any]]) -> None:
    """The README's table."""
    print("| | calls per query | NDCG@10 | less | difference | p, corrected |")
    print("|---" * 6 + "|")
    for arm, calls, value, low, high, other, d, d_low, d_high, _, p, *_ in lines:
        gain = f"{float(d):+.3f} [{float(d_low):+.3f}, {float(d_high):+.3f}]" if d else ""
        mean = f"{float(value):.3f} [{float(low):.3f}, {float(high):.3f}]"
        print("|", " | ".join((arm, calls, mean, other, gain, p and f"{float(p):.3f}")), "|")


def draw(lines: list[list[Any]], path: Path) -> None:
    """What each arm differs by from the one that it is held against."""
    rows = [line for line in lines if line[5] and line[0] != "start"]
    figure = Figure(figsize=(8, 0.34 * len(rows) + 1), layout="constrained")
    axes = figure.add_subplot()
    for place, line in enumerate(rows):
        d, low, high = map(float, line[6:9])
        axes.plot([low, high], [place, place], color="#0969da", linewidth=2, alpha=0.5)
        axes.plot(d, place, "o", color="#0969da")
    axes.axvline(0, color="#24292f", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [f"{line[0]}\nless {line[5]}" for line in rows], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel(f"difference in {METRIC}, 95 % over queries")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
