from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


def test_a_machine_without_a_gpu_is_told_so() -> None:
    done = run()
    assert done.returncode == 2
    assert done.stderr == (
        "benchmarks/gpu.py: no GPU is available; --cpu tries its parts at toy size\n"
    )


@pytest.mark.slow
def test_every_part_runs_at_toy_size() -> None:
    done = run("--cpu")
    assert done.returncode == 0, done.stderr
    for part in ("tests", "qwen3-0.6b", "minilm", "demo", "qwen3-1.7b", "qwen3-4b"):
        assert f"\n{part}: " in done.stdout
        assert f"{part}: left out" not in done.stdout
