"""A table of what `on_gpu.py` found.

    python experiments/bare_corpus/gpu_table.py OUT FOUND ...

FOUND are files that it wrote. Writes OUT, a CSV: NDCG@10 of each model beside the start's on the
same queries, with the interval of the difference; and the mean over collections.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from run import COLLECTIONS, METRIC, average_line, line_of

from zelo.artifacts import write_csv
from zelo.evaluation.evaluate import Values

ABOUT = ("kind", "variant", "seed", "name", "split")
HEADER = [*ABOUT, "collection", "queries", METRIC, "of the start", "difference", "low", "high", "p"]


def main(out: Path, found: list[Path]) -> None:
    rows = [json.loads(line) for path in found for line in path.read_text().splitlines()]
    starts = {(row["collection"], row["split"]): row["values"] for row in rows
              if row["system"] == "search" and row["kind"] == "start"}  # fmt: skip
    starts |= {(row["collection"], "reranked"): row["values"] for row in rows
               if row["system"] == "start"}  # fmt: skip
    by_training: dict[tuple[Any, ...], dict[str, Values]] = defaultdict(dict)
    for row in rows:
        if row["kind"] == "start" or row["system"] == "start":
            continue
        reranked = row["kind"] == "cross-encoder"
        start = starts[row["collection"], "reranked" if reranked else row["split"]]
        name = row["name"] if row["system"] in ("search", "reranked") else row["system"]
        key = (row["kind"], row["variant"], row["seed"], name, row["split"])
        by_training[key][row["collection"]] = {
            ("model", METRIC): np.array([row["values"][query_id] for query_id in start]),
            ("start", METRIC): np.array([*start.values()]),
        }
    lines: list[list[Any]] = []
    for key in sorted(by_training, key=str):
        of = by_training[key]
        for collection in COLLECTIONS:
            if collection in of:
                line = line_of(collection, of[collection], "model", "start")
                lines.append([*key, *line[:2], *line[4:10]])
        line = average_line("model", "start", [*of.values()])
        lines.append([*key, *line[:2], *line[4:10]])
    write_csv(out, HEADER, lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(word) for word in sys.argv[2:]])
