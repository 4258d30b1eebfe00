"""A sweep's folder: what its jobs varied, what came of each, and the two side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zelo.artifacts import read_json, read_table, save_figure, write_csv
from zelo.errors import UserError
from zelo.evaluation.evaluate import TRAINED
from zelo.finished_run import MANIFEST, FinishedRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SEED = "seed"
MEASURES = (f"{TRAINED}/NDCG@10", "gain/NDCG@10")
DEFAULT = "-"  # of an option that a job left as it was


@dataclass(frozen=True)
class Job:
    """One run of a sweep."""

    folder: Path
    overrides: dict[str, str]  # by option or group
    status: str  # done, failed, interrupted, running
    error: str | None
    numbers: dict[str, float]  # of metrics.json
    evaluated: Path | None  # folder of its last stage `evaluate`, which may be gone

    @property
    def name(self) -> str:
        """Its overrides, as they were given."""
        return " ".join(f"{key}={value}" for key, value in self.overrides.items()) or "defaults"


@dataclass(frozen=True)
class Cell:
    """One measure of some jobs that differ in their seeds alone."""

    measure: str
    value: float  # mean over the jobs
    low: float  # of the 95 % interval, as is `high`; NaN where there is none
    high: float


@dataclass(frozen=True)
class SweepRow:
    """Jobs that differ in their seeds alone."""

    varied: dict[str, str]
    jobs: list[Job]
    cells: list[Cell]


def read_jobs(folders: Iterable[Path]) -> list[Job]:
    """The jobs of sweeps, and single runs, in their order; `UserError` where there is none."""
    found: list[Job] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder")
        own = [folder] if (folder / MANIFEST).is_file() else sorted(folder.iterdir(), key=in_order)
        jobs = [read_job(place) for place in own if (place / MANIFEST).is_file()]
        if not jobs:
            raise UserError(f"{folder}: no run of a sweep lies there (NUMBER/{MANIFEST})")
        found += jobs
    return found


def in_order(path: Path) -> tuple[int, str]:
    """Job 2 before job 10."""
    return (int(path.name) if path.name.isdigit() else -1, path.name)


def read_job(folder: Path) -> Job:
    """One run."""
    run = FinishedRun.at(folder)
    metrics = folder / "metrics.json"
    evaluated = [Path(stage["path"]) for stage in run.stages if stage["stage"] == "evaluate"]
    words = [word.lstrip("+").partition("=") for word in run.manifest.get("overrides", [])]
    overrides = {key: value for key, _, value in words}  # `~key` takes something away: no value
    return Job(
        folder,
        overrides,
        run.manifest["status"],
        run.manifest.get("error"),
        read_json(metrics) if metrics.is_file() else {},
        evaluated[-1] if evaluated else None,
    )


def varied(jobs: Sequence[Job]) -> list[str]:
    """What differs between jobs, in the order of the command, seeds left out."""
    keys = dict.fromkeys(key for job in jobs for key in job.overrides)
    return [
        key
        for key in keys
        if key != SEED and len({job.overrides.get(key, DEFAULT) for job in jobs}) > 1
    ]


def rows(jobs: Sequence[Job], measures: Sequence[str] = MEASURES) -> list[SweepRow]:
    """Done jobs that have the measures, grouped by what varies besides the seed."""
    keys = varied(jobs)
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        if job.status == "done" and all(measure in job.numbers for measure in measures):
            values = tuple(job.overrides.get(key, DEFAULT) for key in keys)
            groups.setdefault(values, []).append(job)
    if not groups:
        raise UserError(f"no run that is done has {', '.join(measures)}; {known(jobs)}")
    return [
        SweepRow(dict(zip(keys, values, strict=True)), group, [cell(group, m) for m in measures])
        for values, group in groups.items()
    ]


def known(jobs: Sequence[Job]) -> str:
    """What can be asked for."""
    names = sorted({name for job in jobs for name in job.numbers})
    return f"there are {', '.join(names)}" if names else "none was evaluated"


def cell(jobs: Sequence[Job], measure: str) -> Cell:
    """Mean over seeds with Student's 95 % interval; of one run its bootstrap interval over queries,
    where there is one."""
    values = np.array([job.numbers[measure] for job in jobs])
    mean = float(values.mean())
    if len(values) > 1:
        from scipy.stats import t

        half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
        return Cell(measure, mean, mean - half, mean + half)
    return Cell(measure, mean, *over_queries(jobs[0], measure))


def over_queries(job: Job, measure: str) -> tuple[float, float]:
    """Interval of a measure of one run."""
    system, _, metric = measure.partition("/")
    if job.evaluated is None or not job.evaluated.is_dir():
        return float("nan"), float("nan")
    if system == "gain":
        row = read_json(job.evaluated / "significance.json").get(metric)
        return (row["low"], row["high"]) if row else (float("nan"), float("nan"))
    for row in read_table(job.evaluated, "metrics").to_pylist():
        if (row["system"], row["metric"]) == (system, metric):
            return row["low"], row["high"]
    return float("nan"), float("nan")


def failures(jobs: Sequence[Job]) -> list[str]:
    """A line for each job that is not done."""
    return [
        f"{job.folder.name} ({job.name}): {job.status}{': ' + job.error if job.error else ''}"
        for job in jobs
        if job.status != "done"
    ]


def print_jobs(found: Sequence[SweepRow]) -> None:
    """Print rows by measures."""
    from zelo.reporting.results import new_console, new_table

    seeds = max(len(row.jobs) for row in found)
    over = f"seeds (95 %, n = {seeds})" if seeds > 1 else "queries (95 %)"
    table = new_table(f"mean and interval over {over}")
    for measure in found[0].cells:
        table.add_column(measure.measure, justify="right", no_wrap=True)
    for row in found:
        table.add_row(named(row.varied), *map(shown, row.cells))
    new_console(130).print(table)


def named(values: Mapping[str, str]) -> str:
    """What a row is called."""
    return ", ".join(f"{key}={value}" for key, value in values.items()) or "all"


def shown(one: Cell) -> str:
    """A mean with its interval."""
    interval = "" if np.isnan(one.low) else f" [{one.low:.3f}, {one.high:.3f}]"
    return f"{one.value:.3f}{interval}"


def write_sweep(path: Path, found: Sequence[SweepRow]) -> None:
    """One line per row and measure: what varied, runs, measure, mean, low, high."""
    write_csv(
        path,
        [*found[0].varied, "runs", "measure", "mean", "low", "high"],
        (
            [*row.varied.values(), len(row.jobs), one.measure]
            + [f"{value:.4f}" for value in (one.value, one.low, one.high)]
            for row in found
            for one in row.cells
        ),
    )


def draw(path: Path, found: Sequence[SweepRow]) -> None:
    """A figure of the first measure: lines over the first option whose values are numbers, one for
    each combination of the others; without any, a point per row."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from zelo.reporting.plots import STYLE

    numeric = [key for key in found[0].varied if all(is_number(row.varied[key]) for row in found)]
    with mpl.rc_context(STYLE):
        height = 3.6 if numeric else 0.36 * len(found) + 0.9
        figure = Figure(figsize=(6.4, height), layout="constrained")
        axes: Any = figure.add_subplot()
        if numeric:
            lines(axes, numeric[0], found)
        else:
            points(axes, found)
        axes.grid(color="#eaeef2")
        axes.set_axisbelow(True)
        save_figure(figure, path)


def is_number(text: str) -> bool:
    """Whether an option's value is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def lines(axes: Axes, key: str, found: Sequence[SweepRow]) -> None:
    """A line for each combination of the other options."""
    groups: dict[str, list[SweepRow]] = {}
    for row in found:
        others = {name: value for name, value in row.varied.items() if name != key}
        groups.setdefault(named(others) if others else "", []).append(row)
    for name, group in groups.items():
        group.sort(key=lambda row: float(row.varied[key]))
        x = [float(row.varied[key]) for row in group]
        y, low, high = np.array(
            [[r.cells[0].value, r.cells[0].low, r.cells[0].high] for r in group]
        ).T
        axes.errorbar(x, y, np.nan_to_num([y - low, high - y]), fmt="o-", capsize=3, label=name)
    axes.set(xlabel=key, ylabel=found[0].cells[0].measure)
    if len(groups) > 1:
        axes.legend(frameon=False)


def points(axes: Axes, found: Sequence[SweepRow]) -> None:
    """A point per row."""
    for place, row in enumerate(found):
        one = row.cells[0]
        axes.plot([one.low, one.high], [place, place], color="#0969da", linewidth=2, alpha=0.55)
        axes.plot(one.value, place, "o", color="#0969da")
    axes.set_yticks(range(len(found)), [named(row.varied) for row in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlabel(found[0].cells[0].measure)
