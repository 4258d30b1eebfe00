"""Processes side by side share GPUs: their places, and that one at a time uses what they share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.judging.api import ApiJudge
from zelo.judging.distilled import Distilled
from zelo.judging.ensemble import Ensemble
from zelo.judging.provider import Provider
from zelo.judging.scorer import Scorer
from zelo.models.pretrained import PretrainedModel
from zelo.retrieval.dense import Dense
from zelo.runs import gpu_turns
from zelo.runs.gpu_turns import on_gpu, share_of, turn_on_gpus, visible

PROGRAM = """
import json, os, sys, time
import torch
from zelo.distributed.trainer import LightningTrainer
from zelo.runs.gpu_turns import keep_to_a_share, turn_on_gpus

torch.cuda.device_count = lambda: 2  # of a machine that has them
keep_to_a_share(devices=1)
said, times = [], []
print(os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
sys.stdin.readline()  # until all have their places
for accelerator in ("gpu", "cpu"):
    with turn_on_gpus({"trainer": LightningTrainer(accelerator=accelerator)}, said.append):
        began = time.time()
        time.sleep(0.5)
        times.append((began, time.time()))
print(json.dumps({"said": said, "times": times}))
"""


def test_processes_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three on two GPUs: two share one, and wait for one another where they would train on it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    processes, gpus = [], []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        gpus.append(process.stdout.readline().strip())
        processes.append(process)
    assert gpus == ["GPU-a", "GPU-b", "GPU-a"]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [json.loads(process.communicate()[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    first, second = sorted(found[i]["times"][0] for i in (0, 2))
    assert first[1] <= second[0]
    assert sorted([*found[0]["said"], *found[2]["said"]]) == [
        "waiting for GPU GPU-a, on which another run computes"
    ]
    assert not found[1]["said"]


@pytest.mark.parametrize(
    ("gpus", "devices", "shares"),
    [
        (["0"], 1, [("0",), ("0",), ("0",)]),
        (["0", "1", "2", "3"], 2, [("0", "1"), ("2", "3"), ("0", "1")]),
        (["5", "6", "7"], 2, [("5", "6"), ("5", "6"), ("5", "6")]),
        (["0"], 2, [("0",), ("0",), ("0",)]),
    ],
)
def test_shares(
    tmp_path: Path, gpus: list[str], devices: int, shares: list[tuple[str, ...]]
) -> None:
    found = [share_of(gpus, devices, tmp_path) for _ in range(3)]
    assert [share.gpus for share in found] == shares
    found[1].place.release()  # of a process that ended
    assert share_of(gpus, devices, tmp_path).gpus == shares[1]


def test_shares_that_overlap_have_the_same_turns(tmp_path: Path) -> None:
    """Of sweeps with one and with two GPUs to a training; and of other GPUs other places."""
    both, one = share_of(["1", "0"], 2, tmp_path), share_of(["0"], 1, tmp_path)
    assert Path(both.turns[0].lock_file) == Path(one.turns[0].lock_file)
    assert len({turn.lock_file for turn in both.turns}) == 2
    assert share_of(["0"], 1, tmp_path).gpus == ("0",)
    assert share_of(["2", "3"], 1, tmp_path).gpus == ("2",)


def test_a_process_has_trainings_of_one_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(gpu_turns, "_share", share_of(["0"], 1, tmp_path))
    gpu_turns.keep_to_a_share(1)
    with pytest.raises(UserError, match=r"trainer\.devices=2: .* give each number a sweep"):
        gpu_turns.keep_to_a_share(2)


def trainer(accelerator: str) -> LightningTrainer:
    return LightningTrainer(accelerator=accelerator)


MODEL = PretrainedModel(name="model")
JUDGE_OF_A_MODEL = Ensemble(judges={"one": Scorer(kind="bi_encoder", pretrained=MODEL)})
DISTILLED = Ensemble(
    judges={"one": Distilled(folder=Path("x"), stage_fingerprint="x", trainer=trainer("gpu"))}
)
ASKED = Ensemble(
    judges={
        "one": Scorer(kind="bi_encoder", pretrained=MODEL),
        "two": ApiJudge(provider=Provider(name="p", base_url="http://localhost/v1"), model="m"),
    }
)


@pytest.mark.parametrize(
    ("arguments", "computes"),
    [
        ({"trainer": trainer("gpu"), "model": MODEL}, True),
        ({"trainer": trainer("cpu"), "model": MODEL}, False),
        ({"judge": JUDGE_OF_A_MODEL}, True),  # wherever there is a GPU
        ({"judge": DISTILLED}, True),
        ({"judge": ASKED}, False),  # it waits for hours
        ({"retriever": Dense(trainer=trainer("gpu"), pretrained=MODEL)}, True),
        ({"depth": 5, "seed": 1}, False),
    ],
)
def test_stages_that_compute_on_a_gpu(arguments: dict[str, Any], computes: bool) -> None:
    assert on_gpu(arguments) is computes


def test_without_a_gpu_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # of a machine that has none
    assert visible() == []
    gpu_turns.keep_to_a_share(1)
    said: list[str] = []
    with turn_on_gpus({"trainer": LightningTrainer(accelerator="gpu")}, said.append):
        assert gpu_turns._share is None
    assert not said
