"""Data modules and modules without `zelo run`: a plain `lightning.Trainer`, and others' modules."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from omegaconf import OmegaConf
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder as StockCrossEncoder
from sentence_transformers import SentenceTransformer
from tests.training.trainings import Row, write_folders
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification

from zelo import training
from zelo.artifacts import read_table
from zelo.config import conf_folder
from zelo.errors import UserError
from zelo.progress import tell
from zelo.rating.rate_file import RateFile
from zelo.training import (
    BiEncoderModule,
    CrossEncoderModule,
    PairwiseDataModule,
    PairwiseModule,
    ThurstoneDataModule,
    TrainingOptions,
)
from zelo.training.objectives import CentredMSE

MODULES = {"cross_encoder": CrossEncoderModule, "bi_encoder": BiEncoderModule}
PLAIN: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False,
         "enable_progress_bar": False, "enable_model_summary": False}  # fmt: skip
TWO_EPOCHS = TrainingOptions(max_epochs=2)


@pytest.fixture
def folders(tmp_path: Path, tiny_model: Path) -> dict[str, Path]:
    """A collection with ratings and judgments, and a model."""
    return write_folders(tmp_path / "inputs", {"encoder": tiny_model, "decoder": tiny_model,
                                               "reranker": tiny_model})  # fmt: skip


def thurstone(folders: dict[str, Path], out: Path, **options: Any) -> ThurstoneDataModule:
    """Batches as a notebook makes them."""
    given = {"max_length": 64, "batch_size": 4, "cache_dir": out / "cache", **options}
    return ThurstoneDataModule(
        folders["data"], folders["ratings"], str(folders["encoder"]), **given
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.relative_to(folder)}/{name}": value
        for path in sorted(folder.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


@pytest.mark.parametrize(("architecture", "row"), [("cross_encoder", "mean"),
                                                   ("bi_encoder", "bi-encoder")])  # fmt: skip
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_plain_trainer_trains_what_the_stage_trains(
    architecture: str, row: str, accumulate: int, folders: dict[str, Path], tmp_path: Path
) -> None:
    """To the last bit: the same classes do it."""
    stage = Row(row, options={"accumulate_grad_batches": accumulate})
    stage.stage()(**stage.arguments(tmp_path / "stage", folders))

    data = thurstone(folders, tmp_path, architecture=architecture)
    component = stage.arguments(tmp_path / "unused", folders)["model"]
    module = MODULES[architecture](component, loss="centred_mse", training=TWO_EPOCHS)
    Trainer(max_epochs=2, gradient_clip_val=1.0, accumulate_grad_batches=accumulate,
            **PLAIN).fit(module, data)  # fmt: skip
    module.save_pretrained(tmp_path / "plain")
    ours, stages = weights(tmp_path / "plain"), weights(tmp_path / "stage" / "model")
    assert ours.keys() == stages.keys() != set()
    for name, value in stages.items():
        assert torch.equal(ours[name], value), name


def test_pairwise_judged_batches_too(folders: dict[str, Path], tmp_path: Path) -> None:
    stage = Row("pairwise")
    stage.stage()(**stage.arguments(tmp_path / "stage", folders))
    model = str(folders["encoder"])
    data = PairwiseDataModule(folders["data"], folders["judgments"], model, max_length=64,
                              batch_size=4, cache_dir=tmp_path / "cache")  # fmt: skip
    module = PairwiseModule(model, max_length=64, training=TWO_EPOCHS)
    Trainer(max_epochs=2, gradient_clip_val=1.0, **PLAIN).fit(module, data)
    module.save_pretrained(tmp_path / "plain")
    ours, stages = weights(tmp_path / "plain"), weights(tmp_path / "stage" / "model")
    assert all(torch.equal(ours[name], value) for name, value in stages.items())


@pytest.mark.parametrize("architecture", MODULES)
def test_what_ships_loads_elsewhere(
    architecture: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    data = thurstone(folders, tmp_path, architecture=architecture, validation_fraction=0.3)
    module = MODULES[architecture](
        str(folders["encoder"]), max_length=64, loss="ranknet", learning_rate=1e-3
    )
    trainer = Trainer(max_epochs=1, **PLAIN)
    trainer.fit(module, data)
    assert 0 < float(trainer.callback_metrics["val/NDCG@10"]) <= 1
    module.save_pretrained(tmp_path / "model")
    if architecture == "cross_encoder":
        assert StockCrossEncoder(str(tmp_path / "model")).predict([("a", "b")]).shape == (1,)
    else:
        assert SentenceTransformer(str(tmp_path / "model")).encode(["a"]).shape == (1, 32)


@pytest.mark.parametrize("architecture", MODULES)
def test_a_checkpoint_has_all_that_a_module_is_made_of(
    architecture: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    cls = MODULES[architecture]
    data = thurstone(folders, tmp_path, architecture=architecture)
    module = cls(str(folders["encoder"]), max_length=64, loss="centred_mse", learning_rate=1e-3)
    trainer = Trainer(max_epochs=1, **PLAIN)
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "end.ckpt", weights_only=True)
    again = cls.load_from_checkpoint(tmp_path / "end.ckpt", map_location="cpu")
    assert again.objective == CentredMSE()
    assert again.training_options.optimizer.lr == 1e-3
    assert again.component == module.component
    assert again.logit_scale == module.logit_scale
    batch = next(iter(data.train_dataloader()))
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(batch), module.eval()(batch), rtol=0, atol=0)


FIT = sorted(
    (path.parent.name, path.stem)
    for group in ("module", "data_module")
    for path in (conf_folder() / group).glob("*.yaml")
)


@pytest.mark.parametrize(("group", "name"), FIT)
def test_a_file_of_conf_has_the_arguments_of_its_class(group: str, name: str) -> None:
    """All of them, each with its default where it has one."""
    content: Any = OmegaConf.to_container(OmegaConf.load(conf_folder() / group / f"{name}.yaml"))
    cls = getattr(training, content.pop("_target_").split(".")[2])
    arguments = dict(inspect.signature(cls).parameters)
    if name == "run":
        assert content.pop("run") == "???"
        for of_a_run in ("collection", "ratings", "judgments"):
            del arguments[of_a_run]
    assert list(content) == list(arguments)
    for key, argument in arguments.items():
        empty = argument.default is inspect.Parameter.empty
        default = list(argument.default) if argument.default == () else argument.default
        assert content[key] in ("???", "${base_model}") if empty else content[key] == default, key


@pytest.mark.parametrize(("module", "data", "options"), [
    ("cross_encoder", "thurstone", ["data_module.ratings={ratings}", "module.loss=ranknet"]),
    ("bi_encoder", "thurstone", ["data_module.ratings={ratings}",
                                 "data_module.architecture=bi_encoder"]),
    ("pairwise", "pairwise", ["data_module.judgments={judgments}"]),
])  # fmt: skip
def test_groups_of_conf_instantiate_these_classes(
    module: str, data: str, options: list[str], folders: dict[str, Path], tmp_path: Path
) -> None:
    words = ["data_module.collection={data}", "base_model={encoder}", "trainer.accelerator=cpu",
             f"data_module.cache_dir={tmp_path}", "+trainer.max_steps=1", "+trainer.logger=false",
             "+trainer.enable_checkpointing=false", *options]  # fmt: skip
    given = [f"module={module}", f"data_module={data}", *(w.format(**folders) for w in words)]
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        config = compose("fit", overrides=given)
    trained = instantiate(config.module)
    instantiate(config.trainer).fit(trained, instantiate(config.data_module))
    trained.save_pretrained(tmp_path / "model")
    assert weights(tmp_path / "model")


class Rates(Callback):  # type: ignore[misc]
    """Notes the learning rate of every step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.mark.parametrize(("length", "steps"), [({"max_epochs": 3}, 12), ({"max_steps": 5}, 5)])
def test_the_rate_falls_to_0_at_the_trainers_end(
    length: dict[str, int], steps: int, folders: dict[str, Path], tmp_path: Path
) -> None:
    """Thirteen queries are four steps an epoch."""
    rates = Rates()
    module = BiEncoderModule(str(folders["encoder"]), loss="centred_mse", learning_rate=1.0)
    data = thurstone(folders, tmp_path, architecture="bi_encoder")
    Trainer(callbacks=[rates], **length, **PLAIN).fit(module, data)
    assert len(rates.seen) == steps
    assert max(rates.seen) == 1.0
    assert rates.seen[-1] == pytest.approx(1 / (steps - 1))
    with pytest.raises(UserError, match="give max_epochs or max_steps"):
        Trainer(max_epochs=-1, **PLAIN).fit(module, data)


class Own(LightningModule):  # type: ignore[misc]
    """Someone else's: a stock classifier, a loss and an optimizer of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        scores = batch.inputs["pairs"].apply(self.score)[batch.document_index]
        error = (scores - batch.target).abs() * batch.weight
        loss = batch.loss_scale() * error.sum()
        self.losses.append(float(loss.detach()))
        return loss

    def score(self, features: dict[str, Any]) -> torch.Tensor:
        names = ("input_ids", "attention_mask", "token_type_ids")
        logits: torch.Tensor = self.model(**{name: features[name] for name in names}).logits
        return logits.squeeze(-1)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def test_someone_elses_module_trains_on_these_batches(
    folders: dict[str, Path], tmp_path: Path, tiny_model: Path
) -> None:
    module = Own(tiny_model.parent / "encoder")
    data = thurstone(folders, tmp_path, head="cls")
    Trainer(max_epochs=25, **PLAIN).fit(module, data)
    assert len(module.losses) == 100
    assert sum(module.losses[-4:]) < 0.9 * sum(module.losses[:4])
    # The first is the mean error over the documents of the step.
    targets = next(iter(data.train_dataloader())).target
    assert 0 < module.losses[0] < 3 * float(targets.abs().max())


class Rows(LightningDataModule):  # type: ignore[misc]
    """Someone else's: rows of a query, a document and a target, as `DataLoader` puts them."""

    def __init__(self, rows: list[Any], size: int) -> None:
        super().__init__()
        self.rows, self.size = rows, size

    def train_dataloader(self) -> Any:
        return DataLoader(self.rows, batch_size=self.size)  # type: ignore[arg-type]

    val_dataloader = train_dataloader


@pytest.mark.parametrize("architecture", MODULES)
@pytest.mark.parametrize("named", [True, False])
def test_someone_elses_rows_train_these_modules(
    architecture: str, named: bool, folders: dict[str, Path], tmp_path: Path
) -> None:
    """A batch of all rows has the loss of a step of all queries."""
    texts, documents = ({row[key]: row["text"] for row in read_table(folders["data"], name)
                         .to_pylist()} for name, key in (("queries", "query_id"),
                        ("documents", "doc_id")))  # fmt: skip
    ratings = read_table(folders["ratings"], "ratings").to_pylist()
    rows: list[Any] = [(texts[r["query_id"]], documents[r["doc_id"]], r["target"]) for r in ratings]
    if named:
        rows = [dict(zip(("query", "document", "target"), row, strict=True)) for row in rows]

    def module() -> Any:
        return MODULES[architecture](str(folders["encoder"]), max_length=64, loss="centred_mse")

    data = thurstone(folders, tmp_path, architecture=architecture, batch_size=13)
    data.prepare_data()
    data.setup()
    batch = next(iter(data.train_dataloader()))
    first = module().eval()
    expected = (
        batch.loss_scale(first.objective.size)
        * first.objective.total(first(batch), batch, None).sum()
    )
    own = Trainer(max_epochs=2, **PLAIN)
    trained = module()
    own.fit(trained, Rows(rows, len(rows)))
    assert math.isfinite(float(own.callback_metrics["val/loss"]))
    found = first.from_rows(next(iter(Rows(rows, len(rows)).train_dataloader())))
    loss = (
        found.loss_scale(first.objective.size)
        * first.objective.total(first(found), found, None).sum()
    )
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    with pytest.raises(UserError, match="columns query, document, target"):
        first.from_rows({"text": ["a"]})


def test_texts_are_tokenised_once_until_something_changes(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    thurstone(folders, tmp_path).prepare_data()
    (cached,) = (tmp_path / "cache").iterdir()

    def refuse(*_: Any) -> None:
        raise AssertionError("tokenised again")

    with monkeypatch.context() as patch:
        patch.setattr("zelo.training.tokenized.CrossEncoderInputs.write", refuse)
        thurstone(folders, tmp_path).prepare_data()
    thurstone(folders, tmp_path, max_length=32).prepare_data()
    path = folders["ratings"] / "ratings.parquet"
    path.write_bytes(path.read_bytes() + b"")  # another time
    thurstone(folders, tmp_path).prepare_data()
    assert len(list((tmp_path / "cache").iterdir())) == 3
    assert cached.is_dir()


def test_a_beir_folder_and_a_rated_file(
    beir_folder: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """What a user has at the start: documents, queries, and comparisons of any source."""
    topics = ["apples", "rivers", "engines", "planets"]
    judged = [
        {"query_id": f"q-{topic}-history", "doc_a": f"d0-{topic}", "doc_b": f"d{i}-{topic}",
         "score": -0.5 * i / 3}
        for topic in topics for i in (1, 2, 3)
    ]  # fmt: skip
    file = tmp_path / "judged.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in judged))
    ratings, _ = RateFile(file=file, rating={"target": "cdf"}).run()
    data = ThurstoneDataModule(beir_folder, ratings, str(tiny_model), max_length=64,
                               cache_dir=tmp_path / "cache")  # fmt: skip
    module = CrossEncoderModule(str(tiny_model), max_length=64)
    Trainer(max_epochs=1, **PLAIN).fit(module, data)
    assert data.counts() == {"queries": 4, "targets": 16}
    again = ThurstoneDataModule(beir_folder, ratings, str(tiny_model), cache_dir=tmp_path / "cache")
    assert again.collection == data.collection


def test_targets_that_an_objective_does_not_learn_are_told(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the collection are centred."""
    for loss, said in (("centred_mse", ""), ("mse", "MSE learns targets in [0, 1]: rate with")):
        tell.cache_clear()
        data = thurstone(folders, tmp_path, architecture="bi_encoder")
        module = BiEncoderModule(str(folders["encoder"]), loss=loss)
        Trainer(max_steps=1, **PLAIN).fit(module, data)
        told = capsys.readouterr().err
        assert said in told
        assert ("learns targets" in told) == bool(said)


def test_mistakes_are_told(folders: dict[str, Path], tmp_path: Path) -> None:
    model = str(folders["encoder"])
    for make, said in (
        (lambda: CrossEncoderModule(model, loss="mes"), "loss=mes: no such objective; there are"),
        (lambda: CrossEncoderModule(model, head="tail"), r"model\.head='tail'"),
        (lambda: thurstone(folders, tmp_path, architecture="cross"), "architecture=cross: there"),
        (lambda: CrossEncoderModule("no/such-model"), "model no/such-model"),
        (lambda: ThurstoneDataModule(tmp_path / "no", tmp_path, model).prepare_data(),
         "no/corpus.jsonl: not found"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            make()
