"""What frozen layers make of a text is computed once; `tests/models/test_backbones.py` has every
family of models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.shapes import make
from tests.training.collection import bi_encoder, data_module, fit, rated
from tests.training.trainings import FEATURES, Row, write_folders

from zelo.artifacts import read_table
from zelo.progress import tell
from zelo.training import frozen_layers
from zelo.training.frozen_layers import KeptOutputs
from zelo.training.objectives import CentredMSE
from zelo.training.optimization import AdamW
from zelo.training.options import TrainingOptions

FROZEN = {"frozen_layers": 1, "optimizer": AdamW(lr=1e-3), "max_epochs": 3}


@pytest.mark.parametrize(
    "row",
    [
        Row("mean", options={**FROZEN, **FEATURES["gradient_cache"]}),
        Row("pairwise", feature="gradient_checkpointing", options=FROZEN),
        Row("answer", options={**FROZEN, **FEATURES["accumulate"]}),
        Row("bi-encoder", precision="bf16-mixed", options={**FROZEN, **FEATURES["held_out"]}),
    ],
    ids=str,
)
def test_a_training_learns_the_same(
    row: Row, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its forward passes computed again for the gradient, with adapters, in parts, in half of
    the bits, and with validation, which is of 32 bits."""
    decoder = make("qwen3-toy", tmp_path / "decoder")
    models = {"encoder": tiny_model, "reranker": tiny_model, "decoder": decoder}
    folders = write_folders(tmp_path / "inputs", models)
    got: list[int] = []
    get = KeptOutputs.get

    def count(kept: KeptOutputs, rows: list[int], length: int) -> torch.Tensor:
        got.append(len(rows))
        return get(kept, rows, length)

    monkeypatch.setattr(KeptOutputs, "get", count)
    losses, records = [], []
    for largest in (frozen_layers.LARGEST, 0):
        monkeypatch.setattr(frozen_layers, "LARGEST", largest)
        records.append(row.stage()(**row.arguments(tmp_path / str(largest), folders)))
        losses.append(read_table(tmp_path / str(largest), "losses")["loss"].to_numpy())
        assert len(got) > 0
    tolerance = 1e-5 if row.precision == "32-true" else 0.01
    np.testing.assert_allclose(losses[0], losses[1], atol=tolerance, rtol=tolerance)
    found = {name for name in records[0] if name.startswith("val/")}
    assert bool(found) == ("validation_fraction" in row.options)
    for name in found:
        assert records[0][name] == pytest.approx(records[1][name], rel=0.01)


def test_what_is_not_the_same_each_time_is_not_kept(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Something below that learns, which only whoever has changed the module can have made so."""
    tell.cache_clear()
    training = TrainingOptions(frozen_layers=1)
    module = bi_encoder(tiny_model).module(CentredMSE(), training)
    module.backbone.embeddings.LayerNorm.requires_grad_(True)
    fit(module, data_module(module, tmp_path, rated(), 3), tmp_path, 3, training)
    assert "is not kept: something that learns is among what they compute with" in (
        capsys.readouterr().err
    )
    assert (module.backbone.embeddings.LayerNorm.weight != 1).any()
