"""A table of what `on_gpu.py` found.

    python experiments/bare_corpus/gpu_table.py OUT PAIRS FOUND ...

FOUND are files that it wrote. Writes two CSVs of NDCG@10 with intervals of the differences, for
each collection and the mean over them: OUT has each model beside the start on the same queries,
PAIRS has trained models beside one another.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from run import COLLECTIONS, METRIC, average_line, line_of

from zelo.artifacts import write_csv
from zelo.evaluation.evaluate import Values

ABOUT = ("kind", "variant", "seed", "name")
FIGURES = ["split", "collection", "queries", METRIC, "of the other", "difference", "low", "high",
           "p"]  # fmt: skip
OTHER = ["other kind", "other variant", "other name"]

Training = tuple[Any, ...]  # `ABOUT`
Queries = dict[str, float]  # NDCG@10 by query
Found = dict[tuple[Training, str], dict[str, Queries]]  # training, split -> collection


def read(paths: list[Path]) -> tuple[Found, dict[tuple[str, str], Queries]]:
    """What every model reached, and the start: by split and collection."""
    found: Found = defaultdict(dict)
    starts: dict[tuple[str, str], Queries] = {}
    for row in (json.loads(line) for path in paths for line in path.read_text().splitlines()):
        # A cross-encoder's row is of candidates that are reranked, and so is its start's.
        split = f"{row['split']}, reranked" if row["kind"] == "cross-encoder" else row["split"]
        if row["kind"] == "start" or row["system"] == "start":
            starts[split, row["collection"]] = row["values"]
            continue
        name = row["system"] if row["system"] == "hybrid" else row["name"]
        training = (row["kind"], row["variant"], row["seed"], name)
        found[training, split][row["collection"]] = row["values"]
    return found, starts


def differences(of: dict[str, Queries], other: dict[str, Queries]) -> Iterator[list[Any]]:
    """A line for each collection that both have, and one for their mean."""
    both: list[Values] = []
    for name in COLLECTIONS:
        if name in of and name in other:
            asked = list(other[name])
            values = {("model", METRIC): np.array([of[name][i] for i in asked]),
                      ("other", METRIC): np.array([other[name][i] for i in asked])}  # fmt: skip
            both.append(values)
            line = line_of(name, values, "model", "other")
            yield [*line[:2], *line[4:10]]
    line = average_line("model", "other", both)
    yield [*line[:2], *line[4:10]]


def compared_with(training: Training) -> list[Training]:
    """Trainings that one is held against: rivals, the same without what it changes."""
    kind, variant, seed, name = training
    if kind != "zelo":
        return []
    if name != "recipe":
        return [("zelo", variant, seed, "recipe")]
    if variant != "recipe":
        return [("zelo", "recipe", seed, "recipe")]
    return [("rival", "recipe", seed, f"{loss}, rate 2e-05") for loss in ("mnrl", "margin_mse")]


def main(out: Path, pairs: Path, paths: list[Path]) -> None:
    found, starts = read(paths)
    lines, of_pairs = [], []
    for training, split in sorted(found, key=str):
        of = found[training, split]
        start = {name: starts[split, name] for name in of}
        lines += [[*training, split, *line] for line in differences(of, start)]
        for other in compared_with(training):
            if (other, split) in found:
                told = [*training, other[0], other[1], other[3], split]
                against = found[other, split]
                of_pairs += [[*told, *line] for line in differences(of, against)]
    write_csv(out, [*ABOUT, *FIGURES], lines)
    write_csv(pairs, [*ABOUT, *OTHER, *FIGURES], of_pairs)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(word) for word in sys.argv[3:]])
