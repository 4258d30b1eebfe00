"""What `rivals.py` found beside the recipe, on the same test queries.

    python experiments/bare_corpus/against_rivals.py OUT COLLECTION=RUN,RIVALS ...

RUN is the folder of a run of `experiment=bare_corpus`, RIVALS the CSV that `rivals.py` wrote of it.
Writes the table OUT, a CSV.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
from run import HEADER, METRIC, average_line, line_of

from zelo.artifacts import read_table, write_csv
from zelo.evaluation.evaluate import Values, values_by_system
from zelo.finished_run import FinishedRun

SEARCHING, FUSED = "zelo-search", "zelo-search+bm25"


def with_rivals(run: FinishedRun, rivals: Path) -> Values:
    """Each system's NDCG@10 on every test query, the rivals' among them."""
    table = read_table(run.last("evaluate"), "per_query")
    values = {key: v for key, v in values_by_system(table).items() if key[1] == METRIC}
    systems, ids = table["system"].to_pylist(), table["query_id"].to_pylist()
    order = sorted({i for system, i in zip(systems, ids, strict=True) if system == SEARCHING})
    found: dict[str, dict[str, float]] = {}
    with rivals.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["system"], {})[row["query"]] = float(row[METRIC])
    for system, by_query in found.items():
        values[system, METRIC] = np.array([by_query[query_id] for query_id in order])
    return values


def main(out: Path, given: list[str]) -> None:
    found: dict[str, Values] = {}
    for word in given:
        name, _, places = word.partition("=")
        run, rivals = places.split(",")
        found[name] = with_rivals(FinishedRun.at(run), Path(rivals))
    systems = set.intersection(*({system for system, _ in values} for values in found.values()))
    pairs = [
        (ours, system)
        for ours, ending in ((SEARCHING, "-search"), (FUSED, "-search+bm25"))
        for system in sorted(systems - {SEARCHING, FUSED})
        if system.endswith(ending)
    ]
    lines = [line_of(name, values, *pair) for name, values in found.items() for pair in pairs]
    lines += [average_line(*pair, [*found.values()]) for pair in pairs]
    write_csv(out, HEADER, lines)
    for line in lines:
        print(*line, sep="\t")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
