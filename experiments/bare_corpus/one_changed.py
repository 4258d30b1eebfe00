"""Runs with one thing changed or left out, over their start and over the run without that change.

    python experiments/bare_corpus/one_changed.py OUT COLLECTION:CHANGE=RUN,UNCHANGED ...

RUN and UNCHANGED are folders of runs of `experiment=bare_corpus` on one collection. Writes the
table OUT, a CSV.
"""

from __future__ import annotations

import sys
from pathlib import Path

from run import HEADER, line_of

from zelo.artifacts import read_table, write_csv
from zelo.evaluation.evaluate import Values, values_by_system
from zelo.finished_run import FinishedRun

SYSTEMS = ("zelo-search", "zelo-search+bm25")


def both(changed: Path, unchanged: Path) -> Values:
    """Each system's NDCG@10 on every test query; those of the other run are `unchanged ...`."""
    tables = [
        read_table(FinishedRun.at(place).last("evaluate"), "per_query")
        for place in (changed, unchanged)
    ]
    first, second = (table["query_id"].unique().to_pylist() for table in tables)
    if first != second:
        sys.exit(f"{changed} and {unchanged} have other test queries, or in another order")
    ours, others = (values_by_system(table) for table in tables)
    return ours | {(f"unchanged {system}", metric): of for (system, metric), of in others.items()}


def main(out: Path, given: list[str]) -> None:
    lines = []
    for word in given:
        name, _, places = word.partition("=")
        collection, _, change = name.partition(":")
        values = both(*map(Path, places.split(",")))
        for system in SYSTEMS:
            for other in (system.replace("zelo", "start"), f"unchanged {system}"):
                lines.append([change, *line_of(collection, values, system, other)])
    write_csv(out, ["change", *HEADER], lines)
    for line in lines:
        print(*line, sep="\t")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
