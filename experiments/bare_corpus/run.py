"""The six collections as bare corpora, and a table of what came of it.

    python experiments/bare_corpus/run.py COLLECTIONS WORK OUT [OPTION ...]

COLLECTIONS is a folder of the six in BEIR layout, or of some of them; their training queries are
not used. Runs lie below WORK, and what is done already is not done again. Options go to every run:
those of the judges' files where there is no model hub
(`judge.judges.embedding.pretrained.path=FOLDER`), or `seed=1`; other options have runs of their
own. Writes the table OUT, a CSV.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from without_training import without_training

from zelo.artifacts import read_json, read_table, write_csv
from zelo.evaluation.evaluate import Values, values_by_system
from zelo.evaluation.significance import against
from zelo.finished_run import FinishedRun
from zelo.seeding import stream
from zelo.store import digest

COLLECTIONS = ("cranfield", "med", "cacm", "scifact", "cosqa", "cuad")
METRIC, RESAMPLES = "NDCG@10", 10_000
PAIRS = [  # what is compared with what
    ("zelo-search", "start-search"),
    ("zelo", "start"),
    ("zelo-search+bm25", "hybrid"),
    ("zelo-search+bm25", "start-search+bm25"),
    ("zelo+hybrid", "hybrid"),
]
HEADER = ["collection", "queries", "system", "against", METRIC, "of the other", "difference", "low",
          "high", "p", "better", "worse"]  # fmt: skip


def run(collection: Path, work: Path, options: list[str]) -> Values:
    """Each system's NDCG@10 on every test query."""
    place = work / "runs" / f"{collection.name}-{digest(sorted(options))[:8]}"
    manifest = place / "manifest.json"
    if not manifest.is_file() or read_json(manifest)["status"] != "done":
        words = ["experiment=bare_corpus", "data=beir", f"data.path={collection}", *options]
        words += [f"home={work}", f"hydra.run.dir={place}"]
        subprocess.run([str(Path(sys.executable).parent / "zelo"), "run", *words], check=True)
    values = values_by_system(read_table(FinishedRun.at(place).last("evaluate"), "per_query"))
    return {key: of_queries for key, of_queries in values.items() if key[1] == METRIC}


def line_of(name: str, values: Values, system: str, other: str) -> list[Any]:
    """A system against another on the queries of one collection."""
    test = against(values, other, [system], RESAMPLES, 0)[0]
    means = [values[one, METRIC].mean() for one in (system, other)]
    numbers = (*means, test.difference, test.low, test.high, test.p_value)
    start = [name, len(values[system, METRIC]), system, other]
    return [*start, *(f"{x:.4f}" for x in numbers), test.wins, test.losses]


def average_line(system: str, other: str, found: list[Values]) -> list[Any]:
    """The mean over collections, with an interval from queries drawn anew within each."""
    rng = stream(0, "macro", system, other)
    means = [np.mean([values[one, METRIC].mean() for values in found]) for one in (system, other)]
    drawn = np.mean(
        [
            (gain := values[system, METRIC] - values[other, METRIC])[
                rng.integers(len(gain), size=(RESAMPLES, len(gain)))
            ].mean(1)
            for values in found
        ],
        axis=0,
    )
    low, high = np.quantile(drawn, [0.025, 0.975])
    numbers = (*means, means[0] - means[1], low, high)
    return ["average", len(found), system, other, *(f"{x:.4f}" for x in numbers), "", "", ""]


def main(collections: Path, work: Path, out: Path, options: list[str]) -> None:
    found: list[Values] = []
    lines: list[list[Any]] = []
    for name in COLLECTIONS:
        if not (collections / name).is_dir():
            continue
        bare = without_training(collections / name, work / "collections" / name)
        values = run(bare, work, options)
        found.append(values)
        for system, other in PAIRS:
            lines.append(line_of(name, values, system, other))
    lines += [average_line(*pair, found) for pair in PAIRS]
    write_csv(out, HEADER, lines)
    for line in lines:
        print(*line, sep="\t")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), sys.argv[4:])
