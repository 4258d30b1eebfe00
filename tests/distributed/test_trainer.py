"""`trainer=` passes the arguments of `lightning.Trainer`, but for those that zelo sets itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from tests.training.collection import bi_encoder, data_module, rated
from tests.training.trainings import calling_back

from zelo.config import build, describe, dump
from zelo.distributed.trainer import SET_ELSEWHERE, WATCHES, LightningTrainer, arguments
from zelo.errors import UserError
from zelo.launch import composed
from zelo.training import fit
from zelo.training.objectives import CentredMSE
from zelo.training.options import TrainingOptions
from zelo.training.thurstone_data_module import VALIDATED_AT_ONCE
from zelo.training.trial import try_lightning

CHANGES = {
    "benchmark", "deterministic", "gradient_clip_algorithm", "limit_val_batches", "sync_batchnorm",
}  # fmt: skip


def test_every_argument_of_lightning_is_decided_about() -> None:
    """A new version's new arguments too: what they change, and whether zelo can do with them."""
    fields = set(LightningTrainer.model_fields)
    assert arguments() == fields | set(SET_ELSEWHERE) | WATCHES | CHANGES


@pytest.mark.parametrize("name", SET_ELSEWHERE)
def test_what_zelo_sets_is_refused_with_the_option_to_use(name: str) -> None:
    with pytest.raises(UserError) as caught:
        composed("config", [f"trainer.{name}=1"])
    assert str(caught.value) == f"trainer.{name}: {SET_ELSEWHERE[name]}"


def test_an_unknown_argument_is_refused_in_a_line() -> None:
    with pytest.raises(UserError, match=r"trainer\.limit_bathces: lightning.Trainer has no such"):
        composed("config", ["trainer.limit_bathces=2"])
    with pytest.raises(UserError, match=r"^trainer: .*gradient_clip_algorithm.*sideways"):
        try_lightning(TrainingOptions(), LightningTrainer(gradient_clip_algorithm="sideways"))


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_arguments_are_set_as_other_options_are(plus: str) -> None:
    words = [f"{plus}trainer.limit_val_batches=2", "trainer.precision=bf16-mixed"]
    trainer = composed("config", words).trainer
    assert trainer.others == {"limit_val_batches": 2}
    assert trainer.precision == "bf16-mixed"
    assert build(dump(trainer)) == trainer


def test_what_changes_results_is_in_the_fingerprint() -> None:
    plain = describe(LightningTrainer())
    assert describe(LightningTrainer(profiler="simple", detect_anomaly=True)) == plain
    for name in CHANGES:
        assert describe(LightningTrainer(**{name: 2})) == {**plain, name: 2}


class Watch(Callback):  # type: ignore[misc]
    """Keeps the largest number of a step's gradient, and how many batches validate."""

    def __init__(self) -> None:
        self.largest: list[float] = []
        self.validated = 0

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        self.largest.append(max(float(g.abs().max()) for g in gradients))

    def on_validation_batch_end(self, *_: Any) -> None:
        self.validated += 1


def watched(folder: Path, out: Path, **others: Any) -> Watch:
    """A short training with arguments of Lightning's."""
    watch = Watch()
    training = TrainingOptions(max_epochs=2, max_steps=2, gradient_clip_val=1e-3, validate_every=1)
    module = bi_encoder(folder).module(CentredMSE(), training)
    queries = rated(4 + VALIDATED_AT_ONCE + 4)  # two batches
    data = data_module(module, out, queries[:4], 4, held_out=queries[4:])
    trainer = LightningTrainer(**others)
    with calling_back(watch):
        fit.fit(module, data, out, training, trainer, False, "training")
    return watch


def test_lightning_gets_them(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = watched(tiny_model, tmp_path / "usual")
    assert max(usual.largest) < 9e-4  # the norm is 1e-3
    assert "Profiler Report" not in capsys.readouterr().err
    cut = watched(tiny_model, tmp_path / "cut", gradient_clip_algorithm="value",
                  limit_val_batches=1, profiler="simple")  # fmt: skip
    assert cut.largest == pytest.approx([1e-3, 1e-3])
    assert 0 < cut.validated < usual.validated
    assert "Profiler Report" in capsys.readouterr().err
