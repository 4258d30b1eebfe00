"""Collections whose own training queries are there, without their labels, in place of written ones.

    python experiments/bare_corpus/own_queries.py COLLECTIONS WORK OUT [OPTION ...]

As `run.py`; no query is written, one has sixteen candidates of the hybrid, and a step reads eight
queries. Writes the table OUT, a CSV.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from run import HEADER, PAIRS, average_line, line_of, run

from zelo.artifacts import write_csv

COLLECTIONS = ("cranfield", "scifact", "cosqa", "cuad")  # that have training queries
OWN = ["queries.fewer_than=1", "depth=16", "training.batch_size=8"]


def main(collections: Path, work: Path, out: Path, options: list[str]) -> None:
    found = {
        name: run(collections / name, work, [*OWN, *options])
        for name in COLLECTIONS
        if (collections / name).is_dir()
    }
    lines: list[list[Any]] = [
        line_of(name, values, *pair) for name, values in found.items() for pair in PAIRS
    ]
    lines += [average_line(*pair, [*found.values()]) for pair in PAIRS]
    write_csv(out, HEADER, lines)
    for line in lines:
        print(*line, sep="\t")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), sys.argv[4:])
