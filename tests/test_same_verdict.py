"""Two runs of the suite see the same: what they draw, and what a run writes whatever hashes are."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import Cli


def test_hypothesis_draws_the_same_again() -> None:
    drawn: list[list[float]] = []

    @given(st.floats(0, 1))
    def note(x: float) -> None:
        drawn[-1].append(x)

    for _ in range(2):
        drawn.append([])
        note()
    assert len(set(drawn[0])) > 20
    assert drawn[0] == drawn[1]
    assert settings().database is None  # else a failure would be remembered, and tried first


def test_global_generators_begin_anew_at_every_test() -> None:
    import torch

    found = random.random(), float(np.random.random()), float(torch.rand(()))
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    assert found == (random.random(), float(np.random.random()), float(torch.rand(())))


def test_hashes_of_strings_change_nothing(cli: Cli, tmp_path: Path, beir_folder: Path) -> None:
    """Sets of strings are gone through in another order at every hash seed."""
    found = []
    for seed in ("1", "2"):
        done = cli(
            "run", "data=beir", f"data.path={beir_folder}", "retriever=bm25", f"home=home{seed}",
            "stages=[load,retrieve,compare,judge,rate]", PYTHONHASHSEED=seed,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        store = tmp_path / "work" / f"home{seed}" / "store"
        written = {
            str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(store.rglob("*.parquet"))
        }
        found.append(written)
    assert any("ratings" in name for name in found[0])
    assert found[0] == found[1]
