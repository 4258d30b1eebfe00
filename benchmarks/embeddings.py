"""What do embeddings that are kept save? Three runs of one home, with the store and without it.

    python benchmarks/embeddings.py              part of the demo's collection: some minutes
    python benchmarks/embeddings.py --whole      all of it: half an hour on two cores

The runs are those of somebody who tries things: the demo (with five steps of training, which is not
what is measured), the same with half as many candidates, and another objective. Each is a process
of its own, and the homes take turns. Seconds are those of the stages that a run made; a stage that
the stage store had, or that took no time, has none. At the end the scores of both homes are
compared: texts are read beside other texts where some are kept, which changes them by rounding.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from machine import machine, save

RUNS = {
    "first": [],
    "half as many candidates": ["top_k=50"],
    "another objective": ["top_k=50", "objective=ranknet"],
}
PART = ["data.documents=400", "data.train_queries=60", "data.dev_queries=10",
        "data.test_queries=60"]  # fmt: skip
STAGES = ("retrieve", "judge", "evaluate")
SYSTEM_SCORES = ("system", "query_id", "doc_id")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--whole", action="store_true")
    words = [] if parser.parse_args().whole else PART
    print(machine())
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for run, more in RUNS.items():
            for home, gib in (("kept", 10), ("anew", 0)):
                place = Path(name) / home
                begun = time.monotonic()
                manifest = zelo(
                    place, *words, *more, f"embeddings_gib={gib}", "training.max_steps=5"
                )
                spent = dict.fromkeys(STAGES, 0.0)
                for stage in manifest["stages"]:
                    if stage["made_by_this_run"] and stage["stage"] in spent:
                        spent[stage["stage"]] += stage["seconds"]
                rows.append(
                    {
                        "run": run,
                        "embeddings": home,
                        **{f"{stage}_s": round(took, 1) for stage, took in spent.items()},
                        "whole_run_s": round(time.monotonic() - begun, 1),
                        "ndcg_at_10": round(manifest["results"]["zelo/NDCG@10"], 6),
                        "largest_difference_of_scores": "",
                        "kept_mib": round(size(place / "embeddings") / 2**20, 1),
                    }
                )
                print(rows[-1], flush=True)
            kept, anew = (scores(Path(name) / home) for home in ("kept", "anew"))
            assert kept.keys() == anew.keys()
            rows[-2]["largest_difference_of_scores"] = max(
                abs(kept[key] - anew[key]) for key in kept
            )
            print(rows[-2]["largest_difference_of_scores"], flush=True)
    save("embeddings.csv", rows)


def zelo(home: Path, *words: str) -> dict[str, Any]:
    """Do a run in a process of its own; its manifest."""
    folder = home / "runs" / "last"
    given = ["run", "experiment=quickstart", f"home={home}", f"hydra.run.dir={folder}", *words]
    code = "import sys; from zelo.cli import main; main(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def scores(home: Path) -> dict[tuple[str, ...], float]:
    """System, query and document → score, of the last run's evaluation."""
    manifest = json.loads((home / "runs" / "last" / "manifest.json").read_text())
    (path,) = [stage["path"] for stage in manifest["stages"] if stage["stage"] == "evaluate"]
    table = pq.read_table(Path(path) / "rankings.parquet")
    keys = zip(*(table[name].to_pylist() for name in SYSTEM_SCORES), strict=True)
    return dict(zip(keys, np.asarray(table["score"]).tolist(), strict=True))


def size(folder: Path) -> int:
    """Bytes below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
