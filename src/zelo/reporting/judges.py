"""What a report says of its judges: how they answered, whether they agree, what went wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zelo.artifacts import Table, read_json
from zelo.judging.agreement import JudgeAgreement, JudgeCounts, agreements, consensus, judge_counts
from zelo.store import RECORD


@dataclass(frozen=True)
class Panel:
    """The judges of one stage, over all its rounds."""

    title: str
    judges: list[JudgeCounts]
    agreements: list[JudgeAgreement]
    consensus: float | None  # share of pairs about which several judges chose alike; None: no pairs
    cut: dict[str, int]  # judge → documents of which it saw only the beginning
    repeated: dict[str, dict[str, int]]  # judge → failed attempts by kind, asked again
    given_up: dict[str, str]  # judge → why


def panel(title: str, folders: Sequence[Path], said: Table) -> Panel:
    """What the judges of the rounds in `folders` said, all of it in `said`."""
    counts = [read_json(folder / RECORD)["counts"] for folder in folders]
    repeated: dict[str, Counter[str]] = {}
    for one in counts:
        for judge, kinds in one["failed_attempts"].items():
            repeated.setdefault(judge, Counter()).update(kinds)
    return Panel(
        title,
        judge_counts(said),
        agreements(said),
        consensus(said),
        counts[-1]["documents_cut"],  # of all rounds up to the last
        {judge: dict(kinds.most_common()) for judge, kinds in repeated.items()},
        {judge: why for one in counts for judge, why in one["given_up"].items()},
    )


def matrix(found: Panel) -> list[tuple[str, list[JudgeAgreement | None]]]:
    """Agreements as rows, a judge against all judges; None beside itself."""
    names = [judge.judge for judge in found.judges]
    by_pair: Mapping[frozenset[str], Any] = {
        frozenset((a.judge, a.other)): a for a in found.agreements
    }
    return [(name, [by_pair.get(frozenset((name, other))) for other in names]) for name in names]
