"""What trainings of finished runs learn from, in a folder small enough to carry to another machine.

    python experiments/bare_corpus/pack_runs.py COLLECTIONS OUT COLLECTION/VARIANT-SEED=RUN ...

COLLECTIONS is a folder of collections in BEIR layout, with all of their labels. A RUN of
`experiment=bare_corpus`, up to its ratings at least, is named after its VARIANT: `recipe` where
nothing was changed, which comes before others of its seed; `source` where
`queries.source_is_candidate=true`; `own_candidates` where `queries.neighbourhood=null depth=16`;
other names are yours to choose. Where a collection has `recipe` and `source` with a seed, the
examples that rivals learn from are laid beside them. For `on_gpu.py`.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rivals import examples_of

from zelo.artifacts import read_table
from zelo.data.beir import BeirFolder
from zelo.data.collection import load
from zelo.data.texts import document_texts, query_texts
from zelo.finished_run import FinishedRun
from zelo.store import Store

RERANKED = 48  # candidates of a test query that a cross-encoder is to score
WRITTEN = ("queries", "written", "neighbourhoods", "qrels", "left_out")


def put(table: pa.Table, path: Path, **how: Any) -> None:
    """Write a table as small as it gets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", compression_level=19, **how)


def pack_collection(labelled: Path, run: FinishedRun, out: Path) -> None:
    """Documents, queries with labels, the first stage's candidates of those of the test."""
    store = Store(Path(run.manifest["config"]["home"]) / "store", frozenset({"load"}))
    data = store.run(load, {}, {"source": BeirFolder(path=str(labelled))}).path
    put(read_table(data, "documents"), out / "documents.parquet")
    for name in ("queries", "qrels"):
        put(read_table(data, name), out / "labelled" / f"{name}.parquet")
    of_test = pa.array([*query_texts(data, "test")], pa.string())
    found = read_table(run.last("retrieve"), "candidates")
    wanted = pc.and_(pc.is_in(found["query_id"], of_test), pc.less_equal(found["rank"], RERANKED))
    put(found.filter(wanted).drop_columns(["score"]), out / "test_candidates.parquet")


def pack_run(run: FinishedRun, out: Path, same_seed: Path) -> None:
    """Written queries and the targets of their documents, in 16 bits.

    Tables that `same_seed`, the folder of `recipe`, has as well are named in `as_recipe.json`.
    """
    shared = []
    for name in WRITTEN:
        source = run.collection_folder() / f"{name}.parquet"
        if not source.exists():
            continue
        put(pq.read_table(source), out / source.name)
        other = same_seed / source.name
        if other != out / source.name and other.exists() and (
            other.read_bytes() == (out / source.name).read_bytes()
        ):  # fmt: skip
            (out / source.name).unlink()
            shared.append(source.name)
    (out / "as_recipe.json").write_text(json.dumps(shared))
    rows = read_table(run.ratings_folder(), "ratings")
    targets = pa.array(rows["target"].to_numpy().astype(np.float16))
    rows = pa.table({"query_id": rows["query_id"], "doc_id": rows["doc_id"], "target": targets})
    ids = ["query_id", "doc_id"]
    put(rows, out / "targets.parquet", use_dictionary=ids,
        column_encoding={"target": "BYTE_STREAM_SPLIT"})  # fmt: skip


def pack_examples(run: FinishedRun, rated: FinishedRun, out: Path) -> None:
    """What rivals learn from, by ids, and in how many steps the run's model learned."""
    seed = run.manifest["seed"]
    data = run.collection_folder()
    queries = {text: query_id for query_id, text in query_texts(data, "train").items()}
    documents = {text: doc_id for doc_id, text in document_texts(data).items()}
    rows = [
        {"query_id": queries[q], "source": documents[a], "other": documents[b], "margin": margin}
        for q, a, b, margin in examples_of(run, rated, random.Random(seed))
    ]
    put(pa.Table.from_pylist(rows), out / f"examples-{seed}.parquet")
    (trained,) = [stage for stage in run.stages if stage["stage"] == "train"]
    (out / f"steps-{seed}.json").write_text(json.dumps(trained["counts"]["steps"]))


def main(collections: Path, out: Path, given: list[str]) -> None:
    runs: dict[str, FinishedRun] = {}
    for word in given:
        name, _, folder = word.partition("=")
        runs[name] = run = FinishedRun.at(folder)
        collection, _, of_seed = name.partition("/")
        if not (out / collection).exists():
            pack_collection(collections / collection, run, out / collection)
        seed = of_seed.rpartition("-")[2]
        pack_run(run, out / name, out / collection / f"recipe-{seed}")
    for name, run in runs.items():
        collection, _, of_seed = name.partition("/")
        variant, _, seed = of_seed.rpartition("-")
        rated = runs.get(f"{collection}/source-{seed}")
        trained = any(stage["stage"] == "train" for stage in run.stages)
        if variant == "recipe" and rated is not None and trained:
            pack_examples(run, rated, out / collection)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
