"""What a report says of its judges: how they answered, whether they agree, what went wrong.

Labels of the judged queries are read here, to say how many pairs each judge orders as they do, and
nowhere before: no judge is chosen or weighted by them, and nothing learns from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zelo.artifacts import Table, read_json, read_table
from zelo.data.texts import relevance_grades
from zelo.judging.agreement import (
    JudgeAgreement,
    JudgeCounts,
    LabelAgreement,
    agreements,
    choices,
    consensus,
    judge_counts,
    label_agreements,
)
from zelo.store import RECORD

LISTED = 3  # agreements of two judges that a line lists; of more, the least and the most


@dataclass(frozen=True)
class Panel:
    """The judges of one stage, over all its rounds."""

    title: str
    judges: list[JudgeCounts]
    agreements: list[JudgeAgreement]
    labels: dict[str, LabelAgreement]  # by judge; empty where no judged pair has labels that differ
    consensus: float | None  # share of pairs about which several judges chose alike; None: no pairs
    cut: dict[str, int]  # judge → documents of which it saw only the beginning
    repeated: dict[str, dict[str, int]]  # judge → failed attempts by kind, asked again
    given_up: dict[str, str]  # judge → why
    # Judges that ordered blocks: of their pairs nothing was shown first
    ordering: frozenset[str] = frozenset()


def panel(title: str, folders: Sequence[Path], said: Table, data: Path) -> Panel:
    """What the judges of the rounds in `folders` said, all of it in `said`, of the collection in
    `data`."""
    counts = [read_json(folder / RECORD)["counts"] for folder in folders]
    repeated: dict[str, Counter[str]] = {}
    for one in counts:
        for judge, kinds in one["failed_attempts"].items():
            repeated.setdefault(judge, Counter()).update(kinds)
    chosen = choices(said)
    labels = label_agreements(chosen, relevance_grades(data))
    return Panel(
        title,
        judge_counts(said),
        agreements(chosen),
        {found.judge: found for found in labels if found.pairs},
        consensus(chosen),
        counts[-1]["documents_cut"],  # of all rounds up to the last
        {judge: dict(kinds.most_common()) for judge, kinds in repeated.items()},
        {judge: why for one in counts for judge, why in one["given_up"].items()},
        frozenset(name for folder in folders for name in who_ordered(folder)),
    )


def who_ordered(judgments: Path) -> set[str]:
    """Names of the judges that ordered blocks."""
    if not (judgments / "list_judgments.parquet").is_file():
        return set()
    return set(read_table(judgments, "list_judgments")["judge"].to_pylist())


def matrix(found: Panel) -> list[tuple[str, list[JudgeAgreement | None]]]:
    """Agreements as rows, a judge against all judges; None beside itself."""
    names = [judge.judge for judge in found.judges]
    by_pair: Mapping[frozenset[str], Any] = {
        frozenset((a.judge, a.other)): a for a in found.agreements
    }
    return [(name, [by_pair.get(frozenset((name, other))) for other in names]) for name in names]


def in_words(found: Panel) -> list[str]:
    """How judges agree with one another and with labels, in a line each; none of what there is
    nothing to say."""
    lines = []
    agreed = sorted((a for a in found.agreements if a.both), key=lambda a: a.share)
    if agreed:
        listed = agreed if len(agreed) <= LISTED else [agreed[0], agreed[-1]]
        shares = [f"{shown_share(a)} ({a.judge} and {a.other})" for a in listed]
        between = ", " if len(agreed) <= LISTED else " to "
        lines.append(f"judges choose alike in {between.join(shares)}")
    if found.labels:
        shares = [f"{judge} {shown_share(label)}" for judge, label in found.labels.items()]
        pairs = max(label.pairs for label in found.labels.values())
        lines.append(
            f"they order as labels do, which nothing learns from: {', '.join(shares)} of "
            f"{pairs:,} labelled pairs"
        )
    return lines


def shown_share(found: JudgeAgreement | LabelAgreement) -> str:
    """`81 % [77, 84]`."""
    low, high = round(100 * found.low), round(100 * found.high)
    return f"{found.share:.0%} [{low}, {high}]"


def ends_of_blocks(ratings: Path) -> dict[str, list[dict[str, Any]]]:
    """What the first and the last slot of a block add to a document, by judge, as rows of the table
    `slot_effects`; empty where it is not there."""
    if not (ratings / "slot_effects.parquet").is_file():
        return {}
    slots: dict[str, list[dict[str, Any]]] = {}
    for row in read_table(ratings, "slot_effects").to_pylist():
        slots.setdefault(row["judge"], []).append(row)
    return {judge: [rows[0], rows[-1]] for judge, rows in slots.items()}
