"""What needs a CUDA device: every kind of model in every precision, as the CPU learns it, and the
whole command with `trainer=gpu`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import Cli
from tests.training import trainings
from tests.training.test_trainings import assert_near, folders, plain  # noqa: F401  (fixtures)
from tests.training.trainings import Row, do_each, finish, prepared

from zelo.artifacts import read_table
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.judging.distilled import Distilled
from zelo.judging.question import Question
from zelo.models.pairwise import PairwiseCrossEncoder

pytestmark = pytest.mark.gpu


@pytest.fixture
def small_loss_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 16-mixed a loss is scaled by 2⁶ at first: by 2¹⁶, gradients of some of the small models
    overflow, and the first steps are left out."""

    class GradScaler(torch.amp.GradScaler):
        def __init__(self, **options: Any) -> None:
            super().__init__(init_scale=2.0**6, **options)

    monkeypatch.setattr(torch.amp, "GradScaler", GradScaler)


@pytest.mark.usefixtures("small_loss_scale")
@pytest.mark.parametrize("row", trainings.rows_of_a_gpu(), ids=str)
def test_a_gpu_learns_what_a_cpu_learns(
    row: Row,
    folders: dict[str, Path],  # noqa: F811
    plain: Mapping[str, Path],  # noqa: F811
    tmp_path: Path,
) -> None:
    torch._dynamo.reset()
    do_each(out=tmp_path, trainer=LightningTrainer(), jobs=prepared([row], tmp_path, folders))
    finish(row, tmp_path / str(row), folders)
    reference = plain[row.model + ("held_out" if row.feature == "held_out" else "")]
    now, then = (
        read_table(i, "losses")["loss"].to_numpy() for i in (tmp_path / str(row), reference)
    )
    if row.precision == "32-true":  # TF32 is off, but sums are taken in another order
        np.testing.assert_allclose(now, then, rtol=1e-3, atol=1e-4)
    else:
        assert_near(now, then, row.model)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("processes", ["ddp", "fsdp"])
@pytest.mark.parametrize("name", ["bi-encoder", "answer", "pairwise"])
def test_two_gpus_learn_what_a_cpu_learns(
    name: str,
    processes: str,
    folders: dict[str, Path],  # noqa: F811
    plain: Mapping[str, Path],  # noqa: F811
    tmp_path: Path,
) -> None:
    row = Row(name, processes, "bf16-mixed", accelerator="gpu")
    row.stage()(**row.arguments(tmp_path / str(row), folders))
    now, then = (
        read_table(i, "losses")["loss"].to_numpy() for i in (tmp_path / str(row), plain[name])
    )
    assert_near(now, then, name)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_distilled_judge_answers_as_on_a_cpu(
    tiny_model: Path, tmp_path: Path, precision: str
) -> None:
    PairwiseCrossEncoder(tiny_model, 16, 96).save(tmp_path)
    questions = [
        Question(f"q{i}", str(i), str(i + 1), 0, f"query {i}", f"text {i}", f"words {i} more")
        for i in range(50)
    ]
    there, here = (
        Distilled(folder=tmp_path, trainer=trainer).prepare(tmp_path, {}, seed=0).answer(questions)
        for trainer in (
            LightningTrainer(accelerator="gpu", precision=precision),
            LightningTrainer(),
        )
    )
    scores = [[answer.score for answer in answers] for answers in (there, here)]
    np.testing.assert_allclose(*scores, atol=1e-4 if precision == "32-true" else 0.05)


@pytest.mark.parametrize("model", ["embedding", "reranker"])
def test_the_whole_command_runs_on_a_gpu(
    cli: Cli, toy: list[str], tmp_path: Path, model: str
) -> None:
    """In a process of its own, as one that is forked cannot begin with CUDA."""
    distilled = ["distil=on", "distil.sampler.k_min=3"] if model == "reranker" else []
    words = ["trainer=gpu", f"model={model}", *distilled, *toy]
    done = cli("run", *words, HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    (manifest,) = (tmp_path / "work").glob("outputs/runs/*/manifest.json")
    assert json.loads(manifest.read_text())["status"] == "done"


def test_more_devices_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"trainer\.devices=64: this machine has"):
        LightningTrainer(accelerator="gpu", devices=64).check()
