"""What a run needs at its end is tried at its start, before a judge that costs money is asked."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.shapes import make
from tests.conftest import Cli, write_beir
from tests.end_to_end.test_faults import cut, one_line
from tests.judging.endpoint import running
from tests.judging.storm import collection
from tests.training.test_ranks import CLUSTERS

from zelo.distributed.trainer import LightningTrainer
from zelo.models.lora import Lora
from zelo.models.pretrained import PretrainedModel
from zelo.training.options import TrainingOptions


@pytest.fixture(scope="module")
def models(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model that can be trained, and some that cannot."""
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    root = tmp_path_factory.mktemp("models")
    config = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        num_labels=3,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(root / "classifier")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(root / "classifier")
    shutil.copytree(tiny_model, root / "cut")
    cut(root / "cut/model.safetensors")
    shutil.copytree(tiny_model, root / "wordless")
    (root / "wordless/tokenizer.json").unlink()
    return {"good": tiny_model, "decoder": make("qwen3-toy", root / "decoder"),
            **{name: root / name for name in ("classifier", "cut", "wordless")}}  # fmt: skip


@pytest.fixture(scope="module")
def bought(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[str], Any]]:
    """Words of a run whose judge costs money, and its endpoint."""
    data = collection(tmp_path_factory.mktemp("data") / "c", 2, 6)
    with running() as server:
        yield [
            "stages=[load,retrieve,compare,judge,distil,rate,train]",
            "data=beir", f"data.path={data}", "retriever=bm25", "sampler=regular",
            "sampler.degree=2", "judge=vllm", "depth=4", "top_k=4",
            f"judge.judges.vllm.provider.base_url={server.base_url}",
        ], server  # fmt: skip


PAIRWISE = ["distil=on", "distil.model.pretrained.path={good}"]
NEEDS: dict[str, tuple[list[str], str]] = {
    "labels": (
        ["model=reranker", "model.head=keep", "model.pretrained.path={classifier}"],
        "a classifier of 3 labels",
    ),
    "whole weights": (["model.pretrained.path={cut}"],
                      "cut: the model cannot be loaded (Safetensor"),
    "a vocabulary": (["model.pretrained.path={wordless}"], "its tokenizer has no vocabulary"),
    "layers": (["training.frozen_layers=99"], "frozen_layers=99: the encoder has 2 layers"),
    "adapted layers": (
        ["'model.lora={{_target_: zelo.models.lora.Lora, targets: nothing}}'"],
        "model.lora.targets=nothing: ",
    ),
    "answers": (
        ["model=reranker", "model.head=answer", "model.pretrained.path={decoder}",
         "model.answers=[perhaps not]", "model.max_length=400"],
        "model.answers: 'perhaps not' is",
    ),
    "room": (
        ["model=reranker", "model.head=answer", "model.pretrained.path={decoder}",
         "model.max_length=60"],
        "model.max_length=60: ",
    ),
    "a pairwise model": (
        [*PAIRWISE, "distil.training.frozen_layers=99"],
        "distil.training.frozen_layers=99: the encoder has 2 layers",
    ),
    "nothing held out of distillation": (
        [*PAIRWISE, "distil.training.validation_fraction=0.5"],
        "distil.training.validation_fraction: only the model",
    ),
    "a key": (
        ["logger=wandb", "logger.mode=online"], "logger.mode=online: W&B has no key",
    ),
    "a precision": (["trainer.precision=16-mixed"], "trainer.precision=16-mixed: a CPU"),
    "machines": (["trainer.num_nodes=2"], "trainer.num_nodes=2: srun was not found"),
}  # fmt: skip


@pytest.mark.parametrize("need", NEEDS)
def test_before_anything_is_asked(
    cli: Cli, models: dict[str, Path], bought: tuple[list[str], Any], need: str
) -> None:
    words, server = bought
    more, message = NEEDS[need]
    asked = [word.format(**models).strip("'") for word in more]
    done = cli("run", *words, f"pretrained.path={models['good']}", *asked)
    one_line(done, message)
    assert server.counts()["requests"] == 0


def test_judges_that_read_labels_where_there_are_none(cli: Cli, beir_folder: Path) -> None:
    """Before queries are written and candidates found."""
    shutil.rmtree(beir_folder / "qrels")
    done = cli("run", "data=beir", f"data.path={beir_folder}")
    one_line(done, "choose judges that need none (judge=local_ensemble")
    assert "retrieve" not in done.stderr


def test_what_is_not_run_is_not_tried(
    cli: Cli, tmp_path: Path, models: dict[str, Path], bought: tuple[list[str], Any]
) -> None:
    """A part of a run needs what that part needs; one with nothing to do needs nothing."""
    words, server = bought
    words = [*words, f"pretrained.path={models['good']}", "training.frozen_layers=99"]
    done = cli("run", *words, "stages=[load,retrieve,compare,judge,rate]")
    assert done.returncode == 0, done.stderr
    asked = server.counts()["requests"]
    assert asked > 0
    done = cli("run", *words)  # all that costs is there: only the training fails
    one_line(done, "training.frozen_layers=99")
    assert "judge: already done" in done.stderr
    assert server.counts()["requests"] == asked


def test_a_job_of_a_cluster_manager_trains_as_anywhere(
    cli: Cli, tmp_path: Path, toy: list[str]
) -> None:
    """One process, whatever the manager started: four tasks of which this is one, or a shell."""
    job: dict[str, str] = {}
    for manager, variables in CLUSTERS.items():
        job |= variables if manager != "torchelastic" else {}  # which would hide the others
    done = cli("run", "experiment=quickstart", *toy, "hydra.run.dir=run", **job)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "work/run"
    assert (run / "logs/train/metrics.csv").read_text().count("\n") > 1
    assert json.loads((run / "metrics.json").read_text())["zelo/NDCG@10"] > 0


def test_rerankers_are_tried_before_judges_compare(
    cli: Cli, tmp_path: Path, models: dict[str, Path]
) -> None:
    folder = write_beir(
        tmp_path / "c", {f"d{i}": f"subject worth={i}" for i in range(4)}, {"q": "subject"},
        {"test": [("q", "d3", 1)]},
    )  # fmt: skip
    with running() as server:
        words = [
            "evaluate", "data=beir", f"data.path={folder}", "retriever=bm25", "judge=vllm",
            f"judge.judges.vllm.provider.base_url={server.base_url}",
            "reranker=[pairwise,cross_encoder]", "evaluation.resamples=100", "out=out",
            f"rerankers.cross_encoder.pretrained.path={models['classifier']}",
        ]  # fmt: skip
        one_line(cli(*words), "a classifier of 3 labels")
        assert server.counts()["requests"] == 0


def test_adapters_need_their_package(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    from zelo.errors import UserError
    from zelo.training.bi_encoder import BiEncoder
    from zelo.training.objectives import MSE
    from zelo.training.trial import try_training

    monkeypatch.setitem(sys.modules, "peft", None)  # what is not installed
    model = BiEncoder(pretrained=PretrainedModel(name=str(tiny_model)), lora=Lora())
    # Releases of transformers before 5.20 import it themselves, and stumble over this.
    with pytest.raises(UserError, match=r"model\.lora needs peft|import of peft halted"):
        try_training(model, MSE(), TrainingOptions(), LightningTrainer())


def test_a_trial_that_does_not_work_is_no_refusal(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of one's own may do with its weights what needs their values."""
    from zelo.progress import tell
    from zelo.training.bi_encoder import BiEncoder
    from zelo.training.objectives import MSE
    from zelo.training.trial import try_training

    class Own(BiEncoder):
        """Looks at a weight."""

        def module(self, objective: Any, training: TrainingOptions, seed: int = 0) -> Any:
            module = super().module(objective, training, seed)
            float(next(module.parameters()).sum())
            return module

    tell.cache_clear()
    model = Own(pretrained=PretrainedModel(name=str(tiny_model)))
    before = torch.get_rng_state()
    try_training(model, MSE(), TrainingOptions(), LightningTrainer())
    assert torch.equal(before, torch.get_rng_state())
    assert "could not be tried before it is needed (RuntimeError" in capsys.readouterr().err


def test_without_what_loads_shapes_nothing_is_refused(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from zelo.progress import tell
    from zelo.training.cross_encoder import CrossEncoder
    from zelo.training.objectives import MSE
    from zelo.training.trial import try_training

    place = "transformers.integrations.accelerate.is_accelerate_available"
    monkeypatch.setattr(place, lambda *_: False)  # as where accelerate is not installed
    tell.cache_clear()
    for head in ("mean", "cls"):
        model = CrossEncoder(pretrained=PretrainedModel(name=str(tiny_model)), head=head)
        try_training(model, MSE(), TrainingOptions(), LightningTrainer())
    assert "could not be tried before it is needed (ValueError" in capsys.readouterr().err
