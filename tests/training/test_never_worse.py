"""The starting model ships where no checkpoint is surely better: that which training began with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.training.trainings import Row, Stop, calling_back, write_folders

from zelo.artifacts import read_json
from zelo.data.hold_out import queries_to_hold_out
from zelo.seeding import stream
from zelo.training.never_worse import (
    START,
    TRAINED,
    UNPROVEN,
    best_step,
    choose,
    lower_bound,
)
from zelo.training.objectives import MSE
from zelo.training.optimization import AdamW
from zelo.training.train import HELD_OUT

HELD = {"validation_fraction": 0.6, "validate_every": 2, "max_epochs": 4}


def test_how_many_queries_are_held_out() -> None:
    counts = [0, 24, 25, 50, 100, 249, 250, 500, 1000, 112_000]
    assert [queries_to_hold_out(n) for n in counts] == [0, 0, 5, 10, 20, 49, 50, 50, 100, 11_200]


@pytest.mark.parametrize("queries", [10, 200])
@pytest.mark.parametrize("systems", [1, 8])
def test_the_bound_holds_for_the_best_of_several(queries: int, systems: int) -> None:
    """Of trainings that change nothing on average one in twenty is taken for better; a real gain is
    found where there are queries enough. Checkpoints share most of what they change."""
    rng = np.random.default_rng(0)
    shipped, found, trials = 0, 0, 100
    for _ in range(trials):
        shared = rng.normal(size=(1, queries))
        gains = 0.1 * (shared + 0.5 * rng.normal(size=(systems, queries)))
        best = int(gains.mean(1).argmax())
        shipped += lower_bound(gains, best, rng, flips=200) > 0
        bound = lower_bound(gains + 0.1, best, rng, flips=200)
        found += bound > 0
        assert bound < gains[best].mean() + 0.1
    assert shipped / trials < 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5
    assert found / trials > (0.6 if queries == 10 else 0.99)


def test_bounds_of_few_and_of_equal_queries() -> None:
    rng = stream(0, "flips")
    assert lower_bound(np.full((1, 4), 0.2), 0, rng) == -np.inf
    assert lower_bound(np.full((1, 5), 0.2), 0, rng) == pytest.approx(0.2)
    assert lower_bound(np.zeros((3, 50)), 1, rng) <= 0
    many = np.random.default_rng(1).normal(0.02, 0.1, size=(1, 1000))
    expected = many.mean() - 1.645 * many.std() / 1000**0.5  # of a normal distribution
    assert lower_bound(many, 0, rng) == pytest.approx(expected, abs=2e-4)


def test_the_last_step_ships_unless_another_is_surely_better() -> None:
    """Queries are paired by their ids."""
    start = {f"q{i}": i / 20 for i in range(12)}
    better = {query: value + 0.1 for query, value in reversed(start.items())}
    by_chance = start | {"q3": 0.9}
    ruined = {query: value - 0.1 for query, value in start.items()}
    assert best_step({0: start, 5: by_chance, 10: start}, 0) == 10
    assert best_step({0: start, 5: better, 10: start}, 0) == 5
    assert best_step({0: start, 5: start, 10: ruined}, 0) == 5
    chosen = choose({0: start, 5: better, 10: start}, 5, seed=0)
    assert (chosen.what, chosen.gain) == (TRAINED, pytest.approx(0.1))
    assert choose({0: start, 5: better, 10: start}, 10, seed=0).what == START


@pytest.fixture(scope="module")
def folders(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_folders(tmp_path_factory.mktemp("never worse"), {"encoder": tiny_model,
                         "decoder": tiny_model, "reranker": tiny_model})  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.relative_to(folder)}/{name}": value
        for path in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


@pytest.mark.parametrize("model", ["bi-encoder", "segments", "mean"])
def test_a_training_that_ruins_the_model_ships_the_start(
    folders: dict[str, Path], tmp_path: Path, model: str
) -> None:
    """But for a head that knows nothing before; killed and gone on with, to the same end."""
    options = {**HELD, "optimizer": AdamW(lr=0.5), "gradient_clip_val": 100.0,
               "checkpoint_minutes": 1e-6}  # fmt: skip
    row = Row(model, options=options)
    record = row.stage()(**row.arguments(tmp_path / "whole", folders))
    held_out = read_json(tmp_path / "whole" / HELD_OUT)
    assert len(held_out) == record["validation_queries"] >= 5
    if model == "mean":
        assert record["shipped"] == TRAINED
        assert record["shipped_because"] == "its new head ranks nothing before it has learned"
        assert "val/gain" not in record
        return
    assert record["shipped"] == START
    assert record["val/gain_at_least"] <= 0
    assert record["best_step"] == 0
    shipped = weights(tmp_path / "whole" / "model")
    assert not same(shipped, weights(tmp_path / "whole" / UNPROVEN))
    arguments = row.arguments(tmp_path / "start", folders)
    fresh = arguments["model"].module(arguments["objective"], arguments["training"], 0)
    fresh.save_pretrained(tmp_path / "start" / "model")
    assert same(shipped, weights(tmp_path / "start" / "model"))

    broken = row.arguments(tmp_path / "broken", folders)
    with calling_back(Stop(3)), pytest.raises(RuntimeError, match="killed"):
        row.stage()(**broken)
    assert row.stage()(**broken) == record
    assert same(shipped, weights(tmp_path / "broken" / "model"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_what_ships_without_having_been_compared(folders: dict[str, Path], tmp_path: Path) -> None:
    def record(name: str, **options: Any) -> Any:
        row = Row("bi-encoder", options=options, objective=MSE())
        return row.stage()(**row.arguments(tmp_path / name, folders))

    off = record("off", never_worse=False, **HELD)
    assert (off["shipped"], off["shipped_because"]) == (TRAINED, "training.never_worse=false")
    few = record("few")
    assert (few["shipped"], few["shipped_because"]) == (TRAINED, "no query was held out")
    assert read_json(tmp_path / "few" / HELD_OUT) == []
    assert few["queries"] == 13
