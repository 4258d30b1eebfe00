"""Copies of collections in BEIR layout that have no training query: documents, dev and test."""

from __future__ import annotations

import json
import sys
from pathlib import Path

KEPT = ("dev", "test")


def without_training(source: Path, target: Path) -> Path:
    """The collection in `source` with dev and test queries and labels alone, in `target`."""
    (target / "qrels").mkdir(parents=True, exist_ok=True)
    corpus = target / "corpus.jsonl"
    if not corpus.exists():
        corpus.symlink_to((source / "corpus.jsonl").resolve())
    wanted: set[str] = set()
    for split in KEPT:
        labels = source / "qrels" / f"{split}.tsv"
        if labels.exists():
            text = labels.read_text()
            (target / "qrels" / labels.name).write_text(text)
            wanted |= {line.split("\t")[0] for line in text.splitlines()[1:]}
    lines = (source / "queries.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["_id"] in wanted]
    (target / "queries.jsonl").write_text("".join(kept))
    return target


if __name__ == "__main__":
    for folder in sorted(Path(sys.argv[1]).iterdir()):
        if (folder / "corpus.jsonl").exists():
            print(without_training(folder, Path(sys.argv[2]) / folder.name))
