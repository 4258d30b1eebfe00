"""A table of trainings: what conf/ offers, so combined that every two choices meet in some row.

Each row trains by the stage that a run would use. What the stage would start on its devices is
taken down first; two processes then do the rows of several devices one after another, since to
start a process group for each would take most of the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from lightning.pytorch import Callback
from tests.training.collection import DOCUMENTS, rated

from zelo.artifacts import read_json, table, write_json, write_table
from zelo.config import Component, build, dump
from zelo.distributed.trainer import LightningTrainer
from zelo.models.lora import Lora
from zelo.models.pairwise_model import PairwiseModel
from zelo.models.pretrained import PretrainedModel
from zelo.store import Stage
from zelo.training import fit
from zelo.training.bi_encoder import BiEncoder
from zelo.training.cross_encoder import CrossEncoder
from zelo.training.distil import distil, distil_on_ranks
from zelo.training.loggers import Csv, Tracking
from zelo.training.objectives import BaseObjective, CentredMSE
from zelo.training.options import TrainingOptions
from zelo.training.train import train, train_on_ranks

PROCESSES = ("one", "ddp", "fsdp")
FEATURES: dict[str, dict[str, Any]] = {
    "accumulate": {"accumulate_grad_batches": 2},
    "gradient_cache": {"gradient_cache": True, "max_tokens_per_forward": 40},
    "gradient_checkpointing": {},  # of the model
    "held_out": {"validation_fraction": 0.3, "validate_every": 1},
    "packed": {"packed": True},
    "resume": {"checkpoint_minutes": 1e-6},
}
COMPILED = {"compile": {"compile": True}}  # takes half a minute a row
PAIRWISE = ("pairwise", "pairwise-decoder")


def model(name: str, folders: Mapping[str, Path], checkpointing: bool = False) -> Component:
    """A kind of model; `folders` are those of an encoder, a decoder and a reranker."""
    encoder, decoder, reranker = (
        PretrainedModel(name=str(folders[i])) for i in ("encoder", "decoder", "reranker")
    )
    size = {"max_length": 64, "gradient_checkpointing": checkpointing}
    adapters = {"pretrained": decoder, "lora": Lora(rank=4), **size}
    match name:
        case "bi-encoder":
            return BiEncoder(pretrained=encoder, logit_scale=5.0, **size)
        case "bi-encoder-decoder":
            return BiEncoder(logit_scale=5.0, **adapters)
        case "answer":
            return CrossEncoder(head="answer", **{**adapters, "max_length": 400})
        case "keep":
            return CrossEncoder(pretrained=reranker, head="keep", **size)
        case "pairwise":
            return PairwiseModel(pretrained=encoder, **size)
        case "pairwise-decoder":
            return PairwiseModel(**adapters)
        case head:
            return CrossEncoder(pretrained=encoder, head=head, **size)


MODELS = (
    "bi-encoder", "bi-encoder-decoder", "mean", "cls", "segments", "keep", "answer", *PAIRWISE,
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One training of the table; `options` are TrainingOptions other than the common ones."""

    model: str
    processes: str = "one"
    precision: str = "32-true"
    feature: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    accelerator: str = "cpu"
    objective: BaseObjective = field(default_factory=CentredMSE)

    def __str__(self) -> str:
        parts = (self.model, self.processes, self.precision, self.feature)
        return "-".join(part for part in parts if part)

    def stage(self) -> Stage:
        """The stage that trains it."""
        return distil if self.model in PAIRWISE else train

    def arguments(self, out: Path, folders: Mapping[str, Path]) -> dict[str, Any]:
        """What its stage is called with."""
        out.mkdir(parents=True, exist_ok=True)
        devices = {"devices": 1 if self.processes == "one" else 2}
        strategy = {} if self.processes == "one" else {"strategy": self.processes}
        steps = {"max_epochs": 2, "batch_size": 4, "frozen_layers": 0}
        common = {
            "out": out,
            "data": folders["data"],
            "model": model(self.model, folders, self.feature == "gradient_checkpointing"),
            "training": TrainingOptions(**{**steps, **self.options}),
            "trainer": LightningTrainer(
                precision=self.precision, accelerator=self.accelerator, **devices, **strategy
            ),
            "seed": 0,
            "logger": Tracking(tracker=Csv(), folder=out),
        }
        if self.model in PAIRWISE:
            return {**common, "vote": "soft", "judgments": folders["judgments"]}
        more = {"judgments": folders["judgments"]} if self.objective.reads_judgments else {}
        return {**common, "ratings": folders["ratings"], "objective": self.objective, **more}


def rows_of_a_gpu() -> list[Row]:
    """Every model in every precision of a GPU, the features dealt out, `compile` among them."""
    features = {"": {}, **FEATURES, **COMPILED}
    found = []
    for m, name in enumerate(MODELS):
        usable = [f for f in features if not (name in PAIRWISE and f == "held_out")]
        for h, precision in enumerate(("32-true", "bf16-mixed", "16-mixed")):
            feature = usable[(m + 2 * h) % len(usable)]
            found.append(Row(name, "one", precision, feature, features[feature], "gpu"))
    return found


def rows() -> list[Row]:
    """Every model on one and on two processes in every precision, the features dealt out so that
    each meets every model, every number of processes and every precision."""
    found = []
    for m, name in enumerate(MODELS):
        features = [f for f in FEATURES if not (name in PAIRWISE and f == "held_out")]
        for p, processes in enumerate(PROCESSES):
            for h, precision in enumerate(("32-true", "bf16-mixed")):
                feature = features[(m + 2 * p + h) % len(features)]
                found.append(Row(name, processes, precision, feature, FEATURES[feature]))
    return found


def write_folders(folder: Path, models: Mapping[str, Path]) -> dict[str, Path]:
    """What the stages read: a collection of 13 queries, its ratings and judgments; and models."""
    queries = rated(13)
    found = {name: folder / name for name in ("data", "ratings", "judgments")}
    for path in found.values():
        path.mkdir(parents=True)
    ids = [query.query_id for query in queries]
    write_table(found["data"], "queries", table("queries", query_id=ids,
                text=[f"query number {i}" for i in ids], split=["train"] * 13))  # fmt: skip
    write_table(found["data"], "documents", table("documents", doc_id=list(DOCUMENTS),
                title=[""] * 5, text=list(DOCUMENTS.values())))  # fmt: skip
    scored = [(q.query_id, d, t) for q in queries for d, t in zip(q.doc_ids, q.targets,
              strict=True)]  # fmt: skip
    q, d, t = zip(*scored, strict=True)
    write_table(found["ratings"], "ratings", table("ratings", query_id=q, doc_id=d, elo=t,
                stderr=[0.1] * len(t), target=t))  # fmt: skip
    said = [(one.query_id, one.doc_ids[i], one.doc_ids[j], 1 - 2 * p) for one in queries
            for i, j, p in one.judged[:1]]  # fmt: skip
    q, a, b, s = zip(*said, strict=True)
    n = len(said)
    write_table(found["judgments"], "judgments", table("judgments", query_id=q, doc_a=a, doc_b=b,
                repeat=[0] * n, judge=["judge"] * n, score=s, status=["ok"] * n,
                reasons=[""] * n))  # fmt: skip
    return {**found, **models}


class TakenDownError(Exception):
    """The stage got as far as to start its devices."""


def take_down(row: Row, out: Path, folders: Mapping[str, Path]) -> dict[str, Any]:
    """What the stage of `row` would have each of its devices do, as plain data."""
    taken: dict[str, Any] = {}

    def keep(function: Any, out: Path, trainer: LightningTrainer, **arguments: Any) -> None:
        values = {"out": out, "trainer": trainer, **arguments}
        taken["paths"] = {name: str(v) for name, v in values.items() if isinstance(v, Path)}
        taken["arguments"] = {name: dump(v) for name, v in values.items()
                              if name not in taken["paths"]}  # fmt: skip
        raise TakenDownError

    stage = row.stage()
    arguments = row.arguments(out, folders)
    with mock.patch(f"zelo.training.{stage.name}.on_devices", keep):
        try:
            stage(**arguments)
        except TakenDownError:
            return {**taken, "stop": row.feature == "resume", "pairwise": row.model in PAIRWISE}
    raise AssertionError("the stage starts nothing on its devices")


def finish(row: Row, out: Path, folders: Mapping[str, Path]) -> Mapping[str, Any]:
    """The rest of the stage, after its devices are done."""
    stage = row.stage()
    with mock.patch(f"zelo.training.{stage.name}.on_devices", return_value=None):
        return stage(**row.arguments(out, folders))


@contextmanager
def calling_back(callback: Callback) -> Iterator[None]:
    """Have trainings call one callback more."""
    usual = fit.build_trainer

    def build_trainer(*given: Any, **more: Any) -> Any:
        return usual(*given[:-1], [*given[-1], callback], **more)

    with mock.patch("zelo.training.fit.build_trainer", build_trainer):
        yield


class Stop(Callback):  # type: ignore[misc]
    """Dies in the middle of training, as a kill would."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.at:
            raise RuntimeError("killed")


def do_each(*, out: Path, trainer: LightningTrainer, jobs: Sequence[str]) -> None:
    """Do what was taken down, on this rank; where a job is to stop, it stops and goes on."""
    for job in map(read_json, map(Path, jobs)):
        function = distil_on_ranks if job["pairwise"] else train_on_ranks
        if job["stop"]:
            with calling_back(Stop(3)), pytest.raises(RuntimeError, match="killed"):
                function(**arguments_of(job))
            last = Path(job["paths"]["out"]) / "checkpoints" / "last.ckpt"
            assert torch.load(last, weights_only=True)["global_step"] == 3
        function(**arguments_of(job))


def arguments_of(job: Mapping[str, Any]) -> dict[str, Any]:
    """Plain data as arguments again."""
    return build(job["arguments"]) | {name: Path(p) for name, p in job["paths"].items()}


def prepared(rows: Sequence[Row], folder: Path, folders: Mapping[str, Path]) -> list[str]:
    """Take every row down; the files that say what to do."""
    files = []
    for row in rows:
        file = folder / f"{row}.json"
        write_json(file, take_down(row, folder / str(row), folders))
        files.append(str(file))
    return files
