"""What every benchmark says of itself: the machine it ran on, and a table of results."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> str:
    """Cores, processor and Python."""
    cpu, info = platform.machine(), Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return f"{len(os.sched_getaffinity(0))} cores of {cpu}, Python {platform.python_version()}"


def save(name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `results/NAME`, the machine in the last column."""
    RESULTS.mkdir(exist_ok=True)
    where = machine()
    with (RESULTS / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "machine"])
        writer.writeheader()
        writer.writerows({**row, "machine": where} for row in rows)


if __name__ == "__main__":
    print(machine())
