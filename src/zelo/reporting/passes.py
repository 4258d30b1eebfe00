"""What each pass of a refined run came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zelo.artifacts import read_json, read_table
from zelo.evaluation.assess import ASSESSMENT
from zelo.evaluation.evaluate import TRAINED, values_by_system
from zelo.evaluation.significance import Difference, Estimate, against
from zelo.reporting.results import cell, new_console, new_table, results


@dataclass(frozen=True)
class Pass:
    """One pass: its pairwise model and ratings against the ensemble, its model against labels."""

    number: int
    assessment: dict[str, Estimate | None]  # by measure of `assess`; None: no query to measure on
    ndcg: Estimate
    gain: Difference | None  # in NDCG@10 over the first pass


def passes(made: Mapping[str, Path], resamples: int, seed: int) -> list[Pass]:
    """The passes of a run from `pass_1_assessment`, `pass_1_metrics`, ...; none if not refined."""
    found: list[Pass] = []
    values: dict[tuple[str, str], Any] = {}
    while {f"pass_{len(found) + 1}_{what}" for what in ("metrics", "assessment")} <= made.keys():
        number = len(found) + 1
        metrics = made[f"pass_{number}_metrics"]
        per_query = values_by_system(read_table(metrics, "per_query"))
        values[str(number), "NDCG@10"] = per_query[TRAINED, "NDCG@10"]
        gain = None
        if number > 1:
            (gain,) = against(values, "1", [str(number)], resamples, seed)
        assessment = read_json(made[f"pass_{number}_assessment"] / ASSESSMENT)
        estimates = {
            name: None if row["value"] is None else Estimate(row["value"], row["low"], row["high"])
            for name, row in assessment.items()
        }
        found.append(Pass(number, estimates, results(metrics)[TRAINED]["NDCG@10"], gain))
    return found


def pass_summary(found: list[Pass]) -> dict[str, float]:
    """Every number of the passes under one flat name (`pass_1/NDCG@10`), for files and trackers."""
    numbers = {}
    for one in found:
        for name, estimate in {**one.assessment, "NDCG@10": one.ndcg}.items():
            if estimate is not None:
                numbers[f"pass_{one.number}/{name}"] = estimate.value
    return numbers


def print_passes(found: list[Pass]) -> None:
    """Print what the passes came to, where there were several."""
    if len(found) < 2:
        return
    table = new_table("Passes, mean and 95 % interval")
    for name in ("agreement", "Elo MSE", "Elo tau", "NDCG@10"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        table.add_row(
            str(one.number), *(cell(e) if e else "-" for e in (*one.assessment.values(), one.ndcg))
        )
    console = new_console(110)
    console.print(table)
    for one in found[1:]:
        if one.gain is not None:
            d = one.gain
            console.print(
                f"NDCG@10, pass {one.number} against pass 1: {d.difference:+.3f} "
                f"[{d.low:+.3f}, {d.high:+.3f}], p = {d.p_value:.4f}"
            )
    console.print(
        "(agreement of the pairwise model with the unanimous ensemble; Elos against the "
        "ensemble's dense answers on the sample)\n"
    )
