"""The distilled judge, in this process and in one for each device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.judging.distilled import Distilled, DistilledSession
from zelo.judging.question import Question
from zelo.models.pairwise import PairwiseCrossEncoder


def prepared(folder: Path, trainer: LightningTrainer) -> DistilledSession:
    """The judge with the model in `folder`."""
    return Distilled(folder=folder, trainer=trainer).prepare(folder, {}, seed=0)


def test_devices_answer_as_one_does(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zelo.judging.distilled.QUESTIONS_PER_DEVICE", 7)
    torch.manual_seed(0)
    model = PairwiseCrossEncoder(tiny_model, 16, 96)
    torch.nn.init.normal_(model.head.weight, std=2)
    model.save(tmp_path)
    texts = [" ".join(["rank"] * n + ["document", str(n)]) for n in range(9)]
    questions = [
        Question(f"q{i}", str(i), str(j), 0, f"query {i}", a, b)
        for i, a in enumerate(texts)
        for j, b in enumerate(texts)
        if i != j
    ]
    one = prepared(tmp_path, LightningTrainer())
    two = prepared(tmp_path, LightningTrainer(devices=2))
    assert one.fingerprint == two.fingerprint
    expected = [1 - 2 * p for p in model.eval().preference(
        [(q.query, q.text_a, q.text_b) for q in questions]).tolist()]  # fmt: skip
    assert len(set(expected)) > 50  # they tell documents apart
    for judge in (one, two):
        assert [a.score for a in judge.answer(questions)] == pytest.approx(expected, abs=1e-6)

    assert two.processes is not None
    (first, *_) = two.processes._processes.values()
    first.kill()  # as the system does where memory runs out
    first.join()
    with pytest.raises(UserError, match="ended from outside"):
        two.answer(questions)


def test_another_precision_is_another_judge(tiny_model: Path, tmp_path: Path) -> None:
    PairwiseCrossEncoder(tiny_model, 16, 96).save(tmp_path)
    half = LightningTrainer(precision="bf16-mixed")
    assert (
        prepared(tmp_path, LightningTrainer()).fingerprint != prepared(tmp_path, half).fingerprint
    )
