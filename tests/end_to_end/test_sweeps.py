"""Sweeps: shared stages, launchers, a search, jobs that fail, results side by side."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from scipy.stats import t
from tests.conftest import Cli
from tests.end_to_end.test_run import STAGES

from zelo.config import conf_folder
from zelo.runs.sweep_folder import begin_sweep, end_sweep, folder_to_go_on_in, how_it_draws, seeded


def test_a_sweep_shares_what_its_runs_have_in_common(
    cli: Cli, tmp_path: Path, toy: list[str]
) -> None:
    done = cli("run", "-m", "experiment=quickstart", "sampler=cycles,dense", "seed=1,2", *toy)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("── run ") == 4
    sweep = next((tmp_path / "work" / "outputs" / "sweeps").iterdir())
    seeds = [json.loads((sweep / str(n) / "manifest.json").read_text())["seed"] for n in range(4)]
    assert seeds == [1, 2, 1, 2]
    store = tmp_path / "work" / "outputs" / "store"
    made = {stage: len(list((store / stage).glob("*/stage.json"))) for stage in STAGES}
    assert made == {stage: 1 if stage in ("load", "retrieve") else 4 for stage in STAGES}

    # Side by side: means over seeds, as the runs' own files have them.
    own = [json.loads((sweep / str(n) / "metrics.json").read_text()) for n in range(4)]
    means = [np.mean([own[n]["zelo/NDCG@10"] for n in pair]) for pair in ((0, 1), (2, 3))]
    half = t.ppf(0.975, 1) * abs(own[0]["zelo/NDCG@10"] - own[1]["zelo/NDCG@10"]) / 2
    for sampler, mean in zip(("cycles", "dense"), means, strict=True):
        assert re.search(rf"sampler={sampler}\s+{mean:.3f} \[", done.stdout)
    table = cli("compare", str(sweep), "csv=out.csv", "plot=out.png")
    assert table.returncode == 0, table.stderr
    with (tmp_path / "work" / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["sampler"], row["measure"], row["runs"]) for row in rows] == [
        (sampler, measure, "2")
        for sampler in ("cycles", "dense")
        for measure in ("zelo/NDCG@10", "gain/NDCG@10")
    ]
    assert float(rows[0]["mean"]) == pytest.approx(means[0], abs=1e-4)
    assert float(rows[0]["high"]) == pytest.approx(means[0] + half, abs=1e-4)
    assert (tmp_path / "work" / "out.png").stat().st_size > 5000
    unknown = cli("compare", str(sweep), "metric=zelo/NDCG@9")
    assert unknown.returncode == 2
    assert "zelo/NDCG@10" in unknown.stderr  # what there is
    nothing = cli("compare", str(sweep.parent))
    assert nothing.returncode == 2
    assert "no run of a sweep lies there" in nothing.stderr


def killed_in_its_second_run(zelo: str, work: Path, words: Sequence[str]) -> Path:
    """Folder of a sweep that was killed when its second run had begun."""
    program = [zelo, *words]
    with (work.parent / "said").open("w") as said:
        process = subprocess.Popen(
            program, cwd=work, stdout=said, stderr=said,
            env={**os.environ, "WANDB_MODE": "offline"},
        )  # fmt: skip
        while not (manifests := list(work.glob("outputs/sweeps/*/1/manifest.json"))):
            assert process.poll() is None, (work.parent / "said").read_text()
            time.sleep(0.02)
        process.kill()
        process.wait()
    return manifests[0].parents[1]


@pytest.mark.slow  # how it draws, and that a sweep goes on, are tested by themselves
def test_a_search_that_was_killed_goes_on_in_its_folder(
    cli: Cli, zelo_command: str, tmp_path: Path, toy: list[str]
) -> None:
    """It draws again what it had drawn, which is done already."""
    words = [
        "run", "-m", "hydra/sweeper=search", "hydra.sweeper.n_trials=3", "experiment=quickstart",
        "hydra.sweeper.sampler.n_startup_trials=1",  # from the second on draws follow results
        "evaluation.split=dev", "training.optimizer.lr=tag(log,interval(1e-5,1e-3))", *toy,
    ]  # fmt: skip
    sweep = killed_in_its_second_run(zelo_command, tmp_path / "work", words)

    def rates() -> list[str]:
        runs = [json.loads(path.read_text()) for path in sorted(sweep.glob("*/manifest.json"))]
        return [word for run in runs for word in run["overrides"] if "optimizer.lr" in word]

    before = rates()
    trained = {path: path.stat().st_mtime_ns for path in
               (tmp_path / "work").glob("outputs/store/train/*/stage.json")}  # fmt: skip
    assert len(before) == 2
    assert trained
    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert f"going on with the sweep in {sweep}" in done.stderr
    assert len({*rates()}) == 3
    assert rates()[:2] == before
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    assert f"── 3 runs in {Path('outputs') / 'sweeps' / sweep.name} ──" in done.stdout
    assert json.loads((sweep / "command.json").read_text())["done"] is True


def test_a_sweep_that_was_killed_goes_on_in_its_folder(
    cli: Cli, zelo_command: str, tmp_path: Path, toy: list[str]
) -> None:
    """Under the same names, in the same runs of W&B, with one table of all; what is done stays."""
    words = ["run", "-m", "experiment=quickstart", "seed=1,2", "logger=wandb", *toy]
    work = tmp_path / "work"
    sweep = killed_in_its_second_run(zelo_command, work, words)
    ids = [json.loads(path.read_text())["id"] for path in sorted(sweep.glob("*/wandb.json"))]
    trained = {path: path.stat().st_mtime_ns for path in
               work.glob("outputs/store/train/*/stage.json")}  # fmt: skip
    assert trained
    done = cli(*words, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    assert f"going on with the sweep in {sweep}" in done.stderr
    runs = [json.loads((sweep / str(n) / "manifest.json").read_text()) for n in range(2)]
    assert [(run["seed"], run["status"]) for run in runs] == [(n, "done") for n in (1, 2)]
    after = [json.loads((sweep / str(n) / "wandb.json").read_text())["id"] for n in range(2)]
    assert after[: len(ids)] == ids
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    assert f"── 2 runs in {Path('outputs') / 'sweeps' / sweep.name} ──" in done.stdout
    assert json.loads((sweep / "command.json").read_text())["done"] is True


def test_which_sweep_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest of the same words, if it did not come to its end, and nobody is running it."""
    monkeypatch.chdir(tmp_path)
    words, folder = ["-m", "seed=1,2"], tmp_path / "outputs" / "sweeps" / "one"
    assert folder_to_go_on_in(words) is None
    begin_sweep(folder, words)
    assert folder_to_go_on_in(words) is None  # it is being run
    end_sweep(folder, done=False)
    assert folder_to_go_on_in(words) == folder
    assert folder_to_go_on_in([*words, "depth=5"]) is None
    assert folder_to_go_on_in(["seed=1,2"]) is None
    assert folder_to_go_on_in([*words, f"home={tmp_path}/other"]) is None
    for draws, goes_on in (("beforehand", True), ("by results", True), ("anew", False)):
        search = [*words, "hydra/sweeper=search", draws]
        begin_sweep(other := folder.with_name(draws), search, draws)
        end_sweep(other, done=False)
        (other / "0").mkdir()
        (other / "0" / "manifest.json").write_text('{"status": "done"}')
        assert (folder_to_go_on_in(search) == other) is goes_on
        (other / "0" / "manifest.json").write_text('{"status": "failed"}')
        assert (folder_to_go_on_in(search) == other) is (draws == "beforehand")
    begin_sweep(folder, words)
    end_sweep(folder, done=True)
    assert folder_to_go_on_in(words) is None


@pytest.mark.parametrize(
    ("words", "seed", "draws"),
    [
        ([], [], "beforehand"),
        (["hydra/sweeper=search"], ["hydra.sweeper.sampler.seed=0"], "by results"),
        (["hydra/sweeper=search", "+hydra.sweeper.sampler.seed=null"], [], "anew"),
        (["hydra/sweeper=search", "hydra.sweeper.storage=sqlite:///s.db"], [], "anew"),
        (["hydra/sweeper=search", "hydra/sweeper/sampler=grid"], [], "anew"),
    ],
)
def test_how_a_search_draws(words: list[str], seed: list[str], draws: str) -> None:
    """The sampler has a seed where a search is to go on, and none where it adds to a study."""
    assert seeded(words) == seed
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        whole = compose("config", [*words, *seed], return_hydra_config=True)
    assert how_it_draws(whole.hydra.sweeper) == draws


LAUNCHERS = {
    "serial": [],
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": ["hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"],
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_failing_run_of_a_sweep_is_named_and_does_not_stop_the_others(
    cli: Cli, tmp_path: Path, toy: list[str], launcher: str
) -> None:
    done = cli(
        "run",
        "-m",
        "experiment=quickstart",
        "data.train_queries=500,12",
        "stages=[load]",
        *(t for t in toy if "train_queries" not in t),
        *LAUNCHERS[launcher],
    )
    assert done.returncode == 2
    sweep = next((tmp_path / "work" / "outputs" / "sweeps").iterdir())
    manifests = [json.loads((sweep / str(n) / "manifest.json").read_text()) for n in range(2)]
    assert [manifest["status"] for manifest in manifests] == ["failed", "done"]
    assert "raise data.documents or ask for fewer queries" in manifests[0]["error"]
    (named,) = re.findall("not done: (.*)", done.stderr)
    assert named.startswith("0 (experiment=quickstart data.train_queries=500 ")
    assert named.endswith(manifests[0]["error"])


def test_a_search_goes_on_after_a_trial_that_failed(
    cli: Cli, tmp_path: Path, toy: list[str]
) -> None:
    done = cli(
        "run",
        "-m",
        "hydra/sweeper=search",
        "hydra.sweeper.n_trials=3",
        "hydra.sweeper.sampler.seed=0",
        "experiment=quickstart",
        "evaluation.split=dev",
        "training.optimizer.lr=tag(log,interval(1e-5,1e-3))",
        "data.train_queries=choice(12,500)",
        *(t for t in toy if "train_queries" not in t),
    )
    sweep = next((tmp_path / "work" / "outputs" / "sweeps").iterdir())
    manifests = [json.loads((sweep / str(n) / "manifest.json").read_text()) for n in range(3)]
    status = [manifest["status"] for manifest in manifests]
    assert {"failed", "done"} == set(status)
    assert done.returncode == 2, done.stderr
    assert len(re.findall("not done: ", done.stderr)) == status.count("failed")
    found = OmegaConf.load(sweep / "optimization_results.yaml")
    best = max(
        json.loads((sweep / str(n) / "metrics.json").read_text())["zelo/NDCG@10"]
        for n in range(3)
        if status[n] == "done"
    )
    assert found.best_value == pytest.approx(best)


def test_a_search_whose_runs_come_to_nothing_says_why(
    cli: Cli, tmp_path: Path, beir_folder: Path
) -> None:
    words = ["data=beir", f"data.path={beir_folder}", "stages=[load]", "seed=choice(0,1)"]
    done = cli("run", "-m", "hydra/sweeper=search", "hydra.sweeper.n_trials=1", *words)
    assert done.returncode == 2
    assert "a search goes by NDCG@10 of the trained model, which this run did not" in done.stderr
    assert "Traceback" not in done.stderr
