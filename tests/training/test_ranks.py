"""Two real processes over gloo: they learn what one learns, and stop as one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from tests.training.trainings import write_folders

from zelo.artifacts import read_table, table, write_table
from zelo.config import dump
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.models.pretrained import PretrainedModel
from zelo.store import RECORD
from zelo.training.bi_encoder import BiEncoder
from zelo.training.cross_encoder import CrossEncoder
from zelo.training.loggers import Csv, Tracking
from zelo.training.objectives import MSE, CentredMSE, InfoNCE
from zelo.training.optimization import AdamW
from zelo.training.options import TrainingOptions
from zelo.training.train import train
from zelo.training.trainable import MODEL

Train = Callable[..., Path]


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """What the stage reads: a collection and its ratings, 13 queries."""
    found = write_folders(tmp_path, {})
    return {name: found[name] for name in ("data", "ratings")}


def arguments(folders: dict[str, Path], out: Path, model: Any, **changes: Any) -> dict[str, Any]:
    """Arguments of the stage."""
    out.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"max_epochs": 2, "batch_size": 4, "frozen_layers": 0,
               "validation_fraction": 0.3,
               "validate_every": 3, **changes}  # fmt: skip
    trainer = {name: options.pop(name) for name in ("devices", "strategy") if name in options}
    return {
        "out": out,
        **folders,
        "model": model,
        "objective": options.pop("objective", CentredMSE()),
        "training": TrainingOptions(**options),
        "trainer": LightningTrainer(**trainer),
        "seed": 0,
        "logger": Tracking(tracker=Csv(), folder=out),
    }


def weights_of(out: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {
        f"{path.parent.name}/{name}": value
        for path in sorted((out / MODEL).rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


def assert_same(one: Path, other: Path, rate: float = 1e-4) -> None:
    """Losses to 1e-6 at every step. Weights to a fifth of one step: where a gradient is nothing but
    rounding, Adam makes a step of its sign."""
    losses = [read_table(out, "losses")["loss"].to_numpy() for out in (one, other)]
    np.testing.assert_allclose(losses[1], losses[0], atol=1e-6, rtol=1e-6)
    a, b = weights_of(one), weights_of(other)
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(
            b[name], value, atol=rate / 5, rtol=0, msg=lambda m, n=name: n + m
        )


@pytest.mark.parametrize(
    ("strategy", "make", "objective"),
    [
        pytest.param("ddp", BiEncoder, CentredMSE(), id="ddp-bi-encoder"),
        pytest.param("fsdp", BiEncoder, MSE(), id="fsdp-bi-encoder"),  # whose level learns too
        pytest.param("ddp", CrossEncoder, MSE(), id="ddp-cross-encoder", marks=pytest.mark.slow),
        pytest.param("fsdp", CrossEncoder, MSE(), id="fsdp-cross-encoder", marks=pytest.mark.slow),
    ],
)
def test_two_ranks_learn_what_one_learns(
    tiny_model: Path, tmp_path: Path, folders: dict[str, Path], strategy: str, make: Any,
    objective: Any,
) -> None:  # fmt: skip
    """Batches of 4 queries, the last of an epoch smaller than that: every step is the same."""
    # A large factor of the cosine would make its rounding, which depends on padding, large too.
    model = make(pretrained=PretrainedModel(name=str(tiny_model)), logit_scale=5.0)
    changes = {
        "max_tokens_per_forward": 24,
        "optimizer": AdamW(lr=1e-5),
    }  # ranks have unequal numbers of chunks
    one = train(**arguments(folders, tmp_path / "one", model, objective=objective, **changes))
    two = train(**arguments(folders, tmp_path / "two", model, objective=objective,
                            devices=2, strategy=strategy, **changes))  # fmt: skip
    assert_same(tmp_path / "one", tmp_path / "two", rate=1e-5)
    exact = {"validation_queries", "queries", "targets", "steps", "val/NDCG@10"}
    assert {k: one[k] for k in exact} == {k: two[k] for k in exact}
    assert two["val/loss"] == pytest.approx(one["val/loss"], abs=1e-4)
    assert not list((tmp_path / "two").glob("*.ckpt"))
    assert not (tmp_path / "two" / "job.json").exists()


def test_parts_of_a_batch_on_one_device_are_the_same_step(
    tiny_model: Path, tmp_path: Path, folders: dict[str, Path]
) -> None:
    model = CrossEncoder(pretrained=PretrainedModel(name=str(tiny_model)))
    train(**arguments(folders, tmp_path / "one", model, objective=MSE()))
    train(
        **arguments(folders, tmp_path / "parts", model, objective=MSE(), accumulate_grad_batches=3)
    )
    assert_same(tmp_path / "one", tmp_path / "parts")
    changes = {"gradient_cache": True, "max_tokens_per_forward": 30}
    train(**arguments(folders, tmp_path / "cache", model, objective=MSE(), **changes))
    assert_same(tmp_path / "one", tmp_path / "cache")


def test_more_ranks_than_queries_in_a_batch(
    tiny_model: Path, tmp_path: Path, folders: dict[str, Path]
) -> None:
    """Each rank keeps what the frozen layers make of the documents that it reads again."""
    model = BiEncoder(pretrained=PretrainedModel(name=str(tiny_model)), logit_scale=5.0)
    changes = {"batch_size": 1, "max_epochs": 1, "max_steps": 4, "objective": InfoNCE(),
               "frozen_layers": 1}  # fmt: skip
    train(**arguments(folders, tmp_path / "one", model, **changes))
    train(**arguments(folders, tmp_path / "two", model, devices=2, **changes))
    assert_same(tmp_path / "one", tmp_path / "two")


def test_the_error_of_a_rank_is_the_error_of_the_stage(
    tiny_model: Path, tmp_path: Path, folders: dict[str, Path]
) -> None:
    ratings = read_table(folders["ratings"], "ratings").to_pylist()
    for row in ratings:
        if row["query_id"] == "q5":
            row["target"] = float("nan")
    columns = {name: [row[name] for row in ratings] for name in ratings[0]}
    write_table(folders["ratings"], "ratings", table("ratings", **columns))
    model = BiEncoder(pretrained=PretrainedModel(name=str(tiny_model)), logit_scale=5.0)
    with pytest.raises(UserError, match=r"loss became nan at step \d, in a batch of queries .*q5"):
        train(**arguments(folders, tmp_path / "two", model, devices=2, validation_fraction=0.0))


SCRIPT = """
import json, sys
from pathlib import Path
from unittest import mock
from zelo.config import build
from zelo.store import RECORD
from zelo.training.train import train
job = json.loads(Path(sys.argv[1]).read_text())
arguments = build(job["arguments"]) | {n: Path(p) for n, p in job["paths"].items()}
record = train(**arguments)
(arguments["out"] / RECORD).write_text(json.dumps(record))
"""


@pytest.mark.parametrize(
    ("strategy", "then"),
    [
        ("ddp", {"devices": 1}),
        pytest.param("fsdp", {"devices": 2, "strategy": "fsdp"}, marks=pytest.mark.slow),
    ],
)
def test_a_killed_training_goes_on_and_ends_with_the_same_weights(
    tiny_model: Path, tmp_path: Path, folders: dict[str, Path], strategy: str, then: dict[str, Any]
) -> None:
    """`kill -9` of the stage on two ranks, which die with it; then one, or two again."""
    model = CrossEncoder(pretrained=PretrainedModel(name=str(tiny_model)))
    changes = {
        "max_epochs": 30,
        "checkpoint_minutes": 1e-6,
        "accumulate_grad_batches": 2,
        "objective": MSE(),
    }
    train(**arguments(folders, tmp_path / "whole", model, **changes))
    job = tmp_path / "stage.json"
    values = arguments(folders, tmp_path / "broken", model, devices=2, strategy=strategy, **changes)
    paths = {name: str(v) for name, v in values.items() if isinstance(v, Path)}
    rest = {name: dump(v) for name, v in values.items() if name not in paths}
    job.write_text(json.dumps({"paths": paths, "arguments": rest}))
    stage = subprocess.Popen([sys.executable, "-c", SCRIPT, str(job)])
    last = tmp_path / "broken" / "checkpoints" / "last.ckpt"
    for _ in range(600):
        if last.exists() and torch.load(last, weights_only=True)["global_step"] > 5:
            break
        assert stage.poll() is None, "it ended before it could be killed"
        time.sleep(0.1)
    os.kill(stage.pid, signal.SIGKILL)
    stage.wait()
    time.sleep(1.0)
    ranks = subprocess.run(["pgrep", "-f", str(tmp_path / "broken")], capture_output=True).stdout
    assert not ranks
    assert not (tmp_path / "broken" / RECORD).exists()
    assert torch.load(last, weights_only=True)["global_step"] < 60
    record = train(**{**values, "trainer": LightningTrainer(**then)})
    assert record["steps"] == 60
    assert_same(tmp_path / "whole", tmp_path / "broken")


def test_pairs_are_scored_once_each_and_in_order_whatever_stops_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three shards on two ranks, then on one after a stop that left some of them."""
    from zelo.models import scoring
    from zelo.models.cross_encoder import load_cross_encoder, new_cross_encoder, save_cross_encoder

    torch.manual_seed(0)
    model = new_cross_encoder(tiny_model, "mean")
    model.max_seq_length = 64
    save_cross_encoder(model, tmp_path / "model")
    size = 2 * scoring.SHARD + 7
    pairs = [(f"query {i % 13}", f"document {i} " + "word " * (i % 5)) for i in range(size)]
    trainer = LightningTrainer(devices=2)
    found = scoring.score_on_devices(tmp_path / "model", pairs, tmp_path / "two", trainer)
    assert not (tmp_path / "two").exists()
    some = [0, 1, scoring.SHARD - 1, scoring.SHARD, 2 * scoring.SHARD + 5, size - 1]
    expected = load_cross_encoder(tmp_path / "model").predict([pairs[i] for i in some])
    np.testing.assert_allclose([found[i] for i in some], expected, atol=1e-5)
    assert len(found) == size

    done: list[int] = []
    save = np.save

    def stop_after_one(file: Any, values: Any) -> None:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(len(values))
        save(file, values)

    monkeypatch.setattr(scoring.np, "save", stop_after_one)
    one = LightningTrainer()
    with pytest.raises(KeyboardInterrupt):
        scoring.score_on_devices(tmp_path / "model", pairs, tmp_path / "one", one)
    monkeypatch.setattr(scoring.np, "save", lambda *a: (done.append(0), save(*a)))
    again = scoring.score_on_devices(tmp_path / "model", pairs, tmp_path / "one", one)
    assert len(done) == 3
    np.testing.assert_allclose(again, found, atol=1e-6)


SRUN = """#!{python}
# As much of srun as a training asks for: every task of every node is a process of this machine.
import os, subprocess, sys
options = dict(word[2:].split("=", 1) for word in sys.argv[1:] if word.startswith("--"))
command = [word for word in sys.argv[1:] if not word.startswith("--")]
nodes, tasks = int(options["nodes"]), int(options["ntasks-per-node"])
running = []
for rank in range(nodes * tasks):
    place = {{"SLURM_JOB_ID": "{job}", "SLURM_JOB_NAME": "zelo", "SLURM_NTASKS": nodes * tasks,
             "SLURM_NTASKS_PER_NODE": tasks, "SLURM_NNODES": nodes, "SLURM_PROCID": rank,
             "SLURM_LOCALID": rank % tasks, "SLURM_NODEID": rank // tasks,
             "SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1"}}
    there = {{**os.environ, **{{name: str(value) for name, value in place.items()}}}}
    running.append(subprocess.Popen(command, env=there))
statuses = [process.wait() for process in running]
sys.exit(max(abs(status) for status in statuses))
"""


def job_with_a_free_port() -> int:
    """The first job whose processes meet on a port, 15000 + its last digits, where nobody is."""
    for job in range(10000, 20000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", 15000 + job % 10000))
            return job
    raise AssertionError("no port is free")


def test_two_machines_of_slurm(
    tiny_model: Path, tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage starts a step of its allocation; without srun it says what it needs."""
    model = BiEncoder(pretrained=PretrainedModel(name=str(tiny_model)), logit_scale=5.0)
    train(**arguments(folders, tmp_path / "one", model))
    there = arguments(folders, tmp_path / "two", model)
    there["trainer"] = LightningTrainer(devices=1, num_nodes=2)
    with pytest.raises(UserError, match=r"num_nodes=2: srun was not found"):
        train(**there)
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN.format(python=sys.executable, job=job_with_a_free_port()))
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}:{os.environ['PATH']}")
    train(**there)
    assert_same(tmp_path / "one", tmp_path / "two")


CLUSTERS = {  # what managers set in a job, of which this process is one task or a shell
    "slurm": {"SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "night", "SLURM_NTASKS": "4",
              "SLURM_PROCID": "2", "SLURM_LOCALID": "2", "SLURM_NODEID": "0", "SLURM_NNODES": "1"},
    "slurm, four tasks on each of two nodes": {
              "SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "night", "SLURM_NTASKS": "8",
              "SLURM_NTASKS_PER_NODE": "4", "SLURM_PROCID": "5", "SLURM_LOCALID": "1",
              "SLURM_NODEID": "1", "SLURM_NNODES": "2", "SLURM_NODELIST": "n[1-2]"},
    "torchelastic": {"TORCHELASTIC_RUN_ID": "x", "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "3",
              "GROUP_RANK": "0", "MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "29500"},
    "kubeflow": {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "192.0.2.1", "MASTER_PORT": "23456",
              "PET_NNODES": "2"},
    "lsf": {"LSB_JOBID": "42", "LSB_DJOB_RANKFILE": "/nowhere", "JSM_NAMESPACE_SIZE": "4",
              "JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_LOCAL_RANK": "1"},
    "mpi": {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1", "PMI_SIZE": "4",
              "PMI_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
    "xla": {"PJRT_DEVICE": "TPU", "TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "a,b",
              "XRT_SHARD_WORLD_SIZE": "4", "XRT_SHARD_ORDINAL": "1"},
}  # fmt: skip
TRAIN = """
import json, sys; from pathlib import Path; from zelo.config import build
from zelo.training.train import train
job = json.loads(Path(sys.argv[1]).read_text())
train(**build(job["arguments"]), **{name: Path(p) for name, p in job["paths"].items()})
"""


def test_a_training_takes_its_place_from_who_started_it(
    tiny_model: Path, tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's variables change neither result nor log."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    model = BiEncoder(pretrained=PretrainedModel(name=str(tiny_model)), logit_scale=5.0)
    changes = {"max_epochs": 1, "validation_fraction": 0.0, "max_steps": 2}
    train(**arguments(folders, tmp_path / "free", model, **changes))
    log = (tmp_path / "free/logs/train/metrics.csv").read_text().count("\n")
    assert log > 1
    for manager, variables in CLUSTERS.items():
        with monkeypatch.context() as job:
            for name, value in variables.items():
                job.setenv(name, value)
            job.setattr(rank_zero_only, "rank", 1)  # as it is made of them where it is imported
            train(**arguments(folders, tmp_path / manager, model, **changes))
        assert_same(tmp_path / "free", tmp_path / manager)
        assert (tmp_path / manager / "logs/train/metrics.csv").read_text().count("\n") == log


@pytest.mark.slow
@pytest.mark.parametrize("manager", CLUSTERS)
@pytest.mark.parametrize("devices", [1, 2])
def test_processes_of_their_own_take_their_place_from_who_started_them(
    tiny_model: Path, tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch,
    manager: str, devices: int,
) -> None:  # fmt: skip
    """The variables are there before anything is imported."""
    model = BiEncoder(pretrained=PretrainedModel(name=str(tiny_model)), logit_scale=5.0)
    train(**arguments(folders, tmp_path / "free", model, max_epochs=1))
    for name, value in CLUSTERS[manager].items():
        monkeypatch.setenv(name, value)
    values = arguments(folders, tmp_path / "job", model, max_epochs=1, devices=devices)
    paths = {name: str(v) for name, v in values.items() if isinstance(v, Path)}
    rest = {name: dump(v) for name, v in values.items() if name not in paths}
    (tmp_path / "job.json").write_text(json.dumps({"paths": paths, "arguments": rest}))
    words = [sys.executable, "-c", TRAIN, str(tmp_path / "job.json")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "free", tmp_path / "job")
    logs = [
        (tmp_path / i / "logs/train/metrics.csv").read_text().count("\n") for i in ("free", "job")
    ]
    assert logs[0] == logs[1] > 1


def test_texts_are_embedded_by_both_of_two_devices(tiny_model: Path) -> None:
    """With the model's prompts, its limit and the pooling that it was loaded with."""
    from zelo.models import embedding
    from zelo.models.embedding import embed

    model: Any = embedding.load_embedding_model(tiny_model, 32, "cls")
    model.prompts = {"document": "text: "}
    many = 2 * embedding.WORTH
    texts = [f"document {i} " + "word " * (i % 50) for i in range(many)]
    with mock.patch.object(embedding, "tempfile", wraps=tempfile) as made:
        found = embed(model, texts, 64, "document", "texts", trainer=LightningTrainer(devices=2))
    assert made.TemporaryDirectory.call_count == 1
    alone = embed(model, texts, 64, "document", "texts")
    torch.testing.assert_close(found, alone, atol=1e-5, rtol=0)
