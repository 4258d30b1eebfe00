"""The paper's recipes from end to end, on models of the same architecture shrunk to toy size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.shapes import make
from sentence_transformers import CrossEncoder, SentenceTransformer
from tests.conftest import Cli

SMALL = [
    "judge=simulated",
    "trainer=cpu",
    "top_k=10",
    "depth=6",
    "sampler.cycles=1",
    "data.documents=60",
    "data.train_queries=12",
    "data.dev_queries=4",
    "data.test_queries=6",
    "training.batch_size=4",
    "training.validation_fraction=0.3",
    "training.validate_every=1",
    "training.never_worse=false",  # two steps make nothing better
    "evaluation.resamples=200",
]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make("qwen3-toy", tmp_path_factory.mktemp("decoder"))


@pytest.mark.parametrize(
    ("recipe", "devices"),
    [
        ("zerank_1", 1),
        pytest.param("zerank_1_small", 2, marks=pytest.mark.slow),
        pytest.param("zembed", 1, marks=pytest.mark.slow),
    ],
)
def test_a_recipe_runs_on_a_toy(
    cli: Cli, tmp_path: Path, tiny_model: Path, decoder: Path, recipe: str, devices: int
) -> None:
    """Judges, distilled pairwise model, cycles, Elos, LoRA, export: every stage of it;
    on two processes with activations made anew and scores on both."""
    done = cli(
        "run", f"experiment={recipe}", *SMALL, f"pretrained.path={tiny_model}",
        f"model.pretrained.path={decoder}", f"distil.model.pretrained.path={decoder}",
        f"trainer.devices={devices}",
        *(["model.dimensions=[16]"] if recipe == "zembed" else []),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "work" / "outputs" / "runs").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert [stage["stage"] for stage in manifest["stages"]].count("judge") == 2
    if recipe == "zembed":
        model = SentenceTransformer(str(folder / "model"))
        assert model.encode_query("how to parse").shape == (32,)
        assert model.prompts["query"].startswith("Instruct:")
    else:
        reranker = CrossEncoder(str(folder / "model"))
        scores = reranker.predict([("how to parse", "def parse(): ..."), ("a", "b")])
        assert ((scores > 0) & (scores < 1)).all()
        assert np.ptp(scores) > 0
    assert (folder / "model" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.slow
def test_two_processes_share_one_run_folder_each_in_a_sweep(
    cli: Cli, tmp_path: Path, toy: list[str]
) -> None:
    """A sweep of two jobs, each trained by two processes: two folders, and no more."""
    done = cli(
        "run", "-m", *toy, "trainer.devices=2", "objective=centred_mse,infonce",
        "model.logit_scale=6.0",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (sweep,) = (tmp_path / "work" / "outputs" / "sweeps").iterdir()
    assert sorted(path.name for path in sweep.iterdir() if path.is_dir()) == ["0", "1"]
    assert not (tmp_path / "work" / "outputs" / "runs").exists()
    for job in ("0", "1"):
        assert (sweep / job / "model" / "modules.json").is_file()
