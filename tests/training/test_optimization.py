"""Optimizers and schedules: today's numbers, and each of those in conf/ trains."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.collection import bi_encoder, data_module, rated

from zelo.artifacts import read_table
from zelo.config import conf_folder
from zelo.distributed.trainer import LightningTrainer
from zelo.launch import composed
from zelo.training.fit import fit
from zelo.training.objectives import CentredMSE
from zelo.training.optimization import (
    LR,
    Adafactor,
    AdamW,
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    Schedule,
)
from zelo.training.options import TrainingOptions

GROUPS = [
    (group, path.stem)
    for group in ("optimizer", "schedule")
    for path in sorted((conf_folder() / "training" / group).glob("*.yaml"))
]


def losses(folder: Path, out: Path, training: TrainingOptions) -> list[float]:
    module = bi_encoder(folder).module(CentredMSE(), training)
    data = data_module(module, out, rated(), training.batch_size)
    fit(module, data, out, training, LightningTrainer(), False, "training")
    found: list[float] = read_table(out, "losses")["loss"].to_pylist()
    return found


@pytest.mark.parametrize(("group", "name"), GROUPS)
def test_each_that_conf_offers_trains(
    group: str, name: str, tiny_model: Path, tmp_path: Path
) -> None:
    chosen = f"training/{group}={name}"
    distil = f"training/{group}@distil.training.{group}={name}"
    length = ["training.max_epochs=30", "training.batch_size=16"]
    run: Any = composed("config", [chosen, "distil=on", distil, *length])
    assert getattr(run.distil.training, group) == getattr(run.training, group)
    quick = run.training.optimizer.model_copy(update={"lr": 50 * (run.training.optimizer.lr or LR)})
    found = losses(tiny_model, tmp_path, run.training.model_copy(update={"optimizer": quick}))
    assert len(found) == 30
    assert found[-1] < 0.5 * found[0]


def test_schedules() -> None:
    def factors(schedule: Schedule, steps: int = 10) -> list[float]:
        return [schedule.factor(step, steps) for step in range(steps + 1)]

    linear = factors(LinearSchedule(warmup_ratio=0.2))
    assert linear == [0.5, 1.0, *(left / 8 for left in range(8, -1, -1))]
    assert factors(ConstantSchedule(warmup_ratio=0.2)) == [0.5] + 10 * [1.0]
    cosine = factors(CosineSchedule(warmup_ratio=0.2))
    assert cosine == pytest.approx(
        [0.5, 1.0, *((1 + math.cos(math.pi * done / 8)) / 2 for done in range(9))]
    )
    for schedule in (LinearSchedule(), CosineSchedule(), ConstantSchedule()):
        assert factors(schedule, 1)[0] == 1.0
    assert factors(LinearSchedule(warmup_ratio=0.0))[0] == 1.0


def test_optimizers_are_torchs() -> None:
    weights = [torch.nn.Parameter(torch.ones(4, 8))]
    for ours, theirs in (
        (AdamW(lr=0.1), torch.optim.AdamW(weights, lr=0.1, weight_decay=0.01, fused=True)),
        (Adafactor(lr=0.1), torch.optim.Adafactor(weights, lr=0.1)),
    ):
        made = ours.create(weights, scaled=False)
        assert type(made) is type(theirs)
        assert made.defaults == theirs.defaults
    assert AdamW().create(weights, scaled=True).defaults["fused"] is False


def test_adafactor_keeps_rows_and_columns_and_no_matrix() -> None:
    weight = torch.nn.Parameter(torch.ones(40, 80))
    optimizer = Adafactor().create([weight], scaled=False)
    weight.sum().backward()
    optimizer.step()
    kept = sum(value.numel() for value in optimizer.state[weight].values())
    assert kept <= 40 + 80 + 1
