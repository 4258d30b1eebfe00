"""Many trainings on one GPU, side by side, and how well each model searches or reranks.

    python experiments/bare_corpus/on_gpu.py PACKED OUT [--seconds 280] [--processes 12] [--cpu]

PACKED is what `pack_runs.py` made. Writes OUT, for each system and split a line of JSON with the
NDCG@10 of every query; what OUT has is not done again. After so many seconds what is not done is
left out. `gpu_table.py` makes a table of OUT.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

COLLECTIONS = ("scifact", "cosqa", "cuad", "cacm", "cranfield", "med")
SEEDS = (1, 0, 2)
SETTINGS: dict[str, dict[str, Any]] = {  # what differs from the recipe's
    "rate 5e-5": {"lr": 5e-5},
    "rate 2e-4": {"lr": 2e-4},
    "no layer frozen": {"frozen_layers": 0},
    "no layer frozen, rate 5e-5": {"frozen_layers": 0, "lr": 5e-5},
    "2 epochs": {"max_epochs": 2},
    "8 epochs": {"max_epochs": 8},
    "temperature 0.2": {"temperature": 0.2},
    "temperature 0.8": {"temperature": 0.8},
    "8 epochs, rate 5e-5": {"max_epochs": 8, "lr": 5e-5},
}
RECIPE = {"max_epochs": 4, "batch_size": 96, "docs_per_query": None, "temperature": 0.4, "lr": None}
OF_CROSS_ENCODER = {"batch_size": 16, "docs_per_query": 8, "max_epochs": 2, "temperature": 1.0}
TRIED = "CPU, two steps"  # the device of rows that only try this script
PADDED_TOKENS = 16_384  # that a cross-encoder reads at once
Grades = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Task:
    """A model to be trained and measured."""

    collection: str
    kind: str  # start, zelo, rival, cross-encoder
    variant: str  # of the written queries and their ratings
    seed: int
    name: str
    settings: dict[str, Any] = field(default_factory=dict)

    def known_by(self) -> tuple[str, str, str, int, str]:
        """What tells its rows from those of others."""
        return self.collection, self.kind, self.variant, self.seed, self.name


def tasks() -> Iterator[Task]:
    """What is trained, most wanted first."""
    wanted: list[tuple[str, str, int, str, dict[str, Any]]] = [("start", "recipe", 1, "start", {})]
    wanted += [("zelo", variant, seed, "recipe", {}) for variant in ("recipe", "source")
               for seed in SEEDS]  # fmt: skip
    for rate in (2e-5, 1e-4):
        wanted += [("rival", "recipe", 1, f"{loss}, rate {rate:g}", {"loss": loss, "rate": rate})
                   for loss in ("mnrl", "margin_mse")]  # fmt: skip
    of_cross_encoder = {"head": "segments", **OF_CROSS_ENCODER}
    wanted.append(("cross-encoder", "recipe", 1, "segments", of_cross_encoder))
    wanted += [("zelo", "source", 1, name, settings) for name, settings in SETTINGS.items()]
    wanted += [("zelo", "no_start", seed, "recipe", {}) for seed in SEEDS]
    wanted += [("zelo", "own_candidates", seed, "1 epoch", {"batch_size": 8, "max_epochs": 1})
               for seed in SEEDS]  # fmt: skip
    for kind, variant, seed, name, settings in wanted:
        for collection in COLLECTIONS:
            yield Task(collection, kind, variant, seed, name, settings)


def work_on(task: Task, packed: Path, cpu: bool) -> list[dict[str, Any]]:
    """Train and measure, in a process of its own."""
    import torch

    torch.set_num_threads(1)
    begun = time.monotonic()
    of_kind = cross_encoder if task.kind == "cross-encoder" else embedding_model
    with tempfile.TemporaryDirectory() as folder:
        rows = of_kind(task, packed / task.collection, Path(folder), cpu)
    device = TRIED if cpu else torch.cuda.get_device_name()
    told = {key: value for key, value in asdict(task).items() if key != "settings"}
    seconds = round(time.monotonic() - begun, 1)
    return [{**told, **row, "device": device, "seconds": seconds} for row in rows]


def unpacked(task: Task, here: Path, folder: Path) -> tuple[Path, Path]:
    """Folders as stages leave them: the collection with written queries, and their ratings."""
    import pyarrow.parquet as pq

    from zelo.artifacts import read_json, table, write_table

    data, ratings, own = folder / "data", folder / "ratings", here / f"{task.variant}-{task.seed}"
    for made in (data, ratings):
        made.mkdir()
    paths = [here / "documents.parquet", *own.glob("*.parquet")]
    paths += [here / f"recipe-{task.seed}" / name for name in read_json(own / "as_recipe.json")]
    for path in paths:
        if path.stem != "targets":
            os.symlink(path.resolve(), data / path.name)
    rows = pq.read_table(own / "targets.parquet")
    target = rows["target"].to_numpy().astype("float32")
    ids = {name: rows[name].to_pylist() for name in ("query_id", "doc_id")}
    content = table("ratings", **ids, elo=target, stderr=0 * target, target=target)
    write_table(ratings, "ratings", content)
    return data, ratings


def labelled(here: Path, folder: Path) -> tuple[Path, dict[str, Grades]]:
    """The collection with its own queries, and the grades of those of the test and of others."""
    from zelo.data.texts import query_texts
    from zelo.evaluation.evaluate import grades_to_evaluate

    place = folder / "labelled"
    place.mkdir()
    for path in (here / "documents.parquet", *(here / "labelled").glob("*.parquet")):
        os.symlink(path.resolve(), place / path.name)
    grades = grades_to_evaluate(place, "all")
    test = set(query_texts(place, "test"))
    return place, {
        "test": {i: of for i, of in grades.items() if i in test},
        "dev and train": {i: of for i, of in grades.items() if i not in test},
    }


def trainer_of(cpu: bool) -> Any:
    """The device, and the recipe's precision."""
    from zelo.distributed.trainer import LightningTrainer

    return LightningTrainer(accelerator="cpu" if cpu else "gpu", precision="bf16-mixed")


def trained(task: Task, here: Path, folder: Path, model: Any, cpu: bool) -> Path:
    """The model that the stage `train` makes by these settings."""
    from zelo.training.objectives import ListwiseKL
    from zelo.training.optimization import AdamW
    from zelo.training.options import TrainingOptions
    from zelo.training.train import train

    settings: dict[str, Any] = {**RECIPE, **task.settings, **({"max_steps": 2} if cpu else {})}
    settings.pop("head", None)
    objective = ListwiseKL(target="centred", temperature=settings.pop("temperature"))
    optimizer = AdamW(lr=settings.pop("lr"))
    training = TrainingOptions(optimizer=optimizer, never_worse=False, validate_every=10_000,
                               compile=False, checkpoint_minutes=60.0, **settings)  # fmt: skip
    data, ratings = unpacked(task, here, folder)
    out = folder / "train"
    out.mkdir()
    train(out=out, data=data, ratings=ratings, model=model, objective=objective, training=training,
          trainer=trainer_of(cpu), seed=task.seed, logger=lambda name: False)  # fmt: skip
    return out / "model"


def trained_rival(task: Task, here: Path, folder: Path, start: Path, cpu: bool) -> Path:
    """The model that one of sentence-transformers' losses makes of the same queries."""
    import pyarrow.parquet as pq

    sys.path.insert(0, str(Path(__file__).parent))
    from rivals import train

    from zelo.data.texts import document_texts, query_texts

    data, _ = unpacked(task, here, folder)
    queries, documents = query_texts(data, "train"), document_texts(data)
    examples = [
        (queries[row["query_id"]], documents[row["source"]], documents[row["other"]], row["margin"])
        for row in pq.read_table(here / f"examples-{task.seed}.parquet").to_pylist()
    ]
    steps = 2 if cpu else json.loads((here / f"steps-{task.seed}.json").read_text())
    out = folder / "rival"
    train(start, task.settings["loss"], examples, steps, task.seed, out, task.settings["rate"])
    return out


def measured(ranking: Any, grades: Grades, split: str, system: str) -> dict[str, Any]:
    """NDCG@10 of each of these queries."""
    from zelo.evaluation.evaluate import measure

    ranking = {query_id: ranking[query_id] for query_id in grades}
    rows = measure({system: ranking}, grades).to_pylist()
    values = {r["query_id"]: round(r["value"], 5) for r in rows if r["metric"] == "NDCG@10"}
    return {"system": system, "split": split, "values": values}


def embedding_model(task: Task, here: Path, folder: Path, cpu: bool) -> list[dict[str, Any]]:
    """Search of the whole collection by an embedding model."""
    from zelo.data.texts import Corpus, query_texts
    from zelo.evaluation.search import search_corpus
    from zelo.models.pretrained import PretrainedModel
    from zelo.training.bi_encoder import BiEncoder

    pretrained = PretrainedModel(name="sentence-transformers/all-MiniLM-L6-v2")
    model, made = BiEncoder(pretrained=pretrained), None
    if task.kind == "zelo":
        made = trained(task, here, folder, model, cpu)
    elif task.kind == "rival":
        made = trained_rival(task, here, folder, pretrained.locate(), cpu)
    place, splits = labelled(here, folder)
    wanted = {i for grades in splits.values() for i in grades}
    queries = {i: text for i, text in query_texts(place, "all").items() if i in wanted}
    ranking = search_corpus(model, made, queries, Corpus.at(place), trainer_of(cpu))
    return [measured(ranking, grades, split, "search") for split, grades in splits.items()
            if grades]  # fmt: skip


def cross_encoder(task: Task, here: Path, folder: Path, cpu: bool) -> list[dict[str, Any]]:
    """The hybrid's candidates of test queries, reranked by start and cross-encoder."""
    import pyarrow.parquet as pq

    from zelo.data.texts import document_texts, query_texts
    from zelo.models.pretrained import PretrainedModel
    from zelo.retrieval.ranking import candidates_from, rank_by_score
    from zelo.training.bi_encoder import BiEncoder
    from zelo.training.cross_encoder import CrossEncoder

    pretrained = PretrainedModel(name="sentence-transformers/all-MiniLM-L6-v2")
    model = CrossEncoder(pretrained=pretrained, head=task.settings["head"])
    made = trained(task, here, folder, model, cpu)
    place, splits = labelled(here, folder)
    found = candidates_from(pq.read_table(here / "test_candidates.parquet"))
    grades = dict([*splits["test"].items()][: 3 if cpu else None])
    pool = {i: docs for i, docs in found.items() if i in grades}
    texts = {i: text for i, text in query_texts(place, "test").items() if i in pool}
    documents = document_texts(place)
    by_rank = {i: [-float(n) for n in range(len(docs))] for i, docs in pool.items()}
    scores = {"hybrid": by_rank}
    for system, scorer, at in (("start", BiEncoder(pretrained=pretrained), None),
                               ("reranked", model, made)):  # fmt: skip
        scores[system] = scorer.score(at, texts, documents, pool, folder, trainer_of(cpu),
                                      PADDED_TOKENS)  # fmt: skip
    return [measured(rank_by_score(pool, of), grades, "test", system)
            for system, of in scores.items()]  # fmt: skip


def to_do(args: argparse.Namespace) -> list[Task]:
    """Tasks whose runs were packed and that OUT does not have."""
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {tuple(row[key] for key in ("collection", "kind", "variant", "seed", "name"))
            for row in rows if (row["device"] == TRIED) == args.cpu}  # fmt: skip
    return [
        task
        for task in tasks()
        if (args.packed / task.collection / f"{task.variant}-{task.seed}").is_dir()
        and task.known_by() not in done
        and (not args.only or task.name in args.only)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("packed", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=280.0)
    parser.add_argument("--processes", type=int, default=12)
    parser.add_argument("--only", nargs="*", help="names of trainings")
    parser.add_argument("--cpu", action="store_true", help="two steps each, on the CPU")
    args = parser.parse_args()
    wanted = to_do(args)
    pool = ProcessPoolExecutor(args.processes, multiprocessing.get_context("spawn"))
    waiting = {pool.submit(work_on, task, args.packed, args.cpu): task for task in wanted}
    end, done, failed = time.monotonic() + args.seconds, 0, 0
    with args.out.open("a") as file:
        while waiting and (left := end - time.monotonic()) > 0:
            for future in wait(waiting, left, FIRST_COMPLETED).done:
                task = waiting.pop(future)
                if (error := future.exception()) is not None:
                    failed += 1
                    print(f"{task.known_by()}: {error!r}", file=sys.stderr)
                    continue
                done += 1
                file.writelines(json.dumps(row) + "\n" for row in future.result())
                file.flush()
    for process in pool._processes.values() if waiting else ():  # those at work would go on
        process.kill()
    pool.shutdown(wait=False, cancel_futures=True)
    print(f"{done} of {len(wanted)} done, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
