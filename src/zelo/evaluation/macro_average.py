"""`zelo table`: several collections side by side, with averages over domains and collections.

Every collection counts the same however many queries it has, and every domain however many
collections, as in the paper's table 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zelo import artifacts
from zelo.artifacts import read_json, read_table
from zelo.errors import UserError
from zelo.evaluation.evaluate import CEILING, values_by_system
from zelo.evaluation.significance import (
    bootstrap_interval,
    bootstrap_means,
    holm,
    quantiles,
    randomisation_test,
)
from zelo.seeding import stream

Reals = NDArray[np.float64]
COLLECTIONS, DOMAINS = "average of collections", "average of domains"
RESAMPLES = 10_000


@dataclass(frozen=True)
class Evaluated:
    """One collection: values (queries,) of one metric by system, queries in one order."""

    name: str
    domain: str | None
    values: Mapping[str, Reals]
    settings: Mapping[str, Any] = field(default_factory=dict)  # split, depth and first stage


@dataclass(frozen=True)
class TableRow:
    """A collection, a domain or an average: system → mean, low, high of its 95 % interval."""

    name: str
    kind: str  # collection, domain or average
    queries: int
    values: Mapping[str, tuple[float, float, float]]


@dataclass(frozen=True)
class Verdict:
    """A system against the baseline over all collections."""

    system: str
    difference: float
    low: float
    high: float
    p_value: float
    p_corrected: float
    better: int  # collections, by the mean
    worse: int


def read_evaluations(folders: Sequence[Path], metric: str) -> list[Evaluated]:
    """What `zelo evaluate` wrote into folders.

    Raises `UserError` where a folder has no evaluation, lacks the metric, or a name comes twice.
    """
    found: list[Evaluated] = []
    for folder in folders:
        if not (folder / "evaluation.json").exists():
            raise UserError(f"{folder}: has no evaluation.json; give folders of `zelo evaluate`")
        about = read_json(folder / "evaluation.json")
        if "collection" not in about:
            raise UserError(f"{folder}: written by an earlier version; run zelo evaluate again")
        values = values_by_system(read_table(folder, "per_query"))
        by_system = {system: row for (system, name), row in values.items() if name == metric}
        if not by_system:
            names = ", ".join(dict.fromkeys(name for _, name in values))
            raise UserError(f"{folder}: has no {metric}; there are {names}")
        if about["collection"] in {other.name for other in found}:
            raise UserError(
                f"{folder}: collection {about['collection']} is there already; name it by data.name"
            )
        settings = {key: about[key] for key in ("split", "depth", "first_stage")}
        found.append(Evaluated(about["collection"], about["domain"], by_system, settings))
    return found


def shared_systems(evaluated: Sequence[Evaluated]) -> list[str]:
    """Systems that every collection has, in the order of the first; `UserError` for none."""
    first, *others = evaluated
    shared = [s for s in first.values if all(s in other.values for other in others)]
    if not shared:
        raise UserError("the evaluations have no system in common")
    return shared


def differences(evaluated: Sequence[Evaluated]) -> list[str]:
    """Notes on how evaluations differ: systems that not all have, and settings."""
    shared, notes = set(shared_systems(evaluated)), []
    left_out = sorted({system for e in evaluated for system in e.values} - shared)
    if left_out:
        notes.append(f"{', '.join(left_out)}: not in every evaluation, and left out")
    for key in evaluated[0].settings:
        by_value: dict[Any, list[str]] = {}
        for e in evaluated:
            by_value.setdefault(e.settings[key], []).append(e.name)
        if len(by_value) > 1:
            ways = "; ".join(f"{value} of {', '.join(names)}" for value, names in by_value.items())
            notes.append(f"{key.replace('_', ' ')} differs: {ways}")
    return notes


def weights(evaluated: Sequence[Evaluated]) -> Iterator[tuple[str, str, Reals]]:
    """Averages to show: name, kind, and the weight of each collection (collections,)."""
    n = len(evaluated)
    domains = np.array([e.domain or "" for e in evaluated], dtype=object)
    named = [domain for domain in dict.fromkeys(domains) if domain]
    for domain in named:
        yield domain, "domain", (domains == domain) / (domains == domain).sum()
    yield COLLECTIONS, "average", np.full(n, 1 / n)
    if len(named) > 1 and all(domains):
        shares = [(domains == domain) / (domains == domain).sum() for domain in named]
        yield DOMAINS, "average", np.mean(shares, axis=0)


def table_rows(evaluated: Sequence[Evaluated], seed: int = 0) -> list[TableRow]:
    """A row per collection, per domain and per average; intervals are bootstrapped over queries,
    drawn anew within each collection."""
    systems = shared_systems(evaluated)
    found = []
    for e in evaluated:
        intervals = {
            system: (
                float(e.values[system].mean()),
                *bootstrap_interval(e.values[system], stream(seed, "table", e.name), RESAMPLES),
            )
            for system in systems
        }
        found.append(TableRow(e.name, "collection", len(e.values[systems[0]]), intervals))
    for name, kind, weight in weights(evaluated):
        intervals = {
            system: (
                float(weight @ [e.values[system].mean() for e in evaluated]),
                *interval([e.values[system] for e in evaluated], weight, seed),
            )
            for system in systems
        }
        size = sum(len(e.values[systems[0]]) for e, w in zip(evaluated, weight, strict=True) if w)
        found.append(TableRow(name, kind, size, intervals))
    return found


def interval(values: Sequence[Reals], weight: Reals, seed: int) -> tuple[float, float]:
    """95 % interval of the weighted mean of several collections' means."""
    means = np.zeros(RESAMPLES)
    for number, (sample, w) in enumerate(zip(values, weight, strict=True)):
        means += w * bootstrap_means(sample, stream(seed, "macro", str(number)), RESAMPLES)
    return quantiles(means)


def against_baseline(evaluated: Sequence[Evaluated], baseline: str, seed: int = 0) -> list[Verdict]:
    """Every other system against the baseline, in the average of collections.

    The paired randomisation test exchanges the two values of each query at random; p-values are
    corrected by Holm's method.
    """
    systems = shared_systems(evaluated)
    if baseline not in systems:
        raise UserError(f"baseline {baseline}: not in every evaluation; there are {systems}")
    weight = np.full(len(evaluated), 1 / len(evaluated))
    found = []
    for system in systems:
        if system in (baseline, CEILING):
            continue
        gains = [e.values[system] - e.values[baseline] for e in evaluated]
        means = np.array([d.mean() for d in gains])
        # What each query adds to the average of collections.
        parts = np.concatenate([w * d / len(d) for w, d in zip(weight, gains, strict=True)])
        rng = stream(seed, "macro test")
        p = randomisation_test(parts, np.zeros(len(parts)), rng, RESAMPLES)
        low, high = interval(gains, weight, seed)
        found.append((system, float(weight @ means), low, high, p, int((means > 0).sum()),
                      int((means < 0).sum())))  # fmt: skip
    corrected = holm([row[4] for row in found])
    return [
        Verdict(system, d, low, high, p, p_corrected, better, worse)
        for (system, d, low, high, p, better, worse), p_corrected in zip(
            found, corrected, strict=True
        )
    ]


def write_csv(path: Path, found: Sequence[TableRow]) -> None:
    """One line per row and system: name, kind, queries, system, value, low, high."""
    artifacts.write_csv(
        path,
        ["name", "kind", "queries", "system", "value", "low", "high"],
        (
            [row.name, row.kind, row.queries, system, *(f"{number:.4f}" for number in numbers)]
            for row in found
            for system, numbers in row.values.items()
        ),
    )
