"""Processes side by side share GPUs: their places, and that one at a time uses what they share."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from zelo.distributed.trainer import LightningTrainer
from zelo.runs import gpu_turns
from zelo.runs.gpu_turns import share_of, turn_on_gpus, visible

PROGRAM = """
import json, os, sys, time
from zelo.distributed.trainer import LightningTrainer
from zelo.runs.gpu_turns import keep_to_a_share, turn_on_gpus

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
        "waiting for GPU GPU-a, on which another run trains or evaluates"
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


def test_without_a_gpu_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible() == []
    gpu_turns.keep_to_a_share(1)
    said: list[str] = []
    with turn_on_gpus({"trainer": LightningTrainer(accelerator="gpu")}, said.append):
        assert gpu_turns._share is None
    assert not said
