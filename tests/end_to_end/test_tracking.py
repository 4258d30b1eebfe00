"""What trackers are told, read back from what they wrote."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Cli
from tests.end_to_end.test_run import run_folder

from zelo.artifacts import read_table
from zelo.errors import UserError
from zelo.training.loggers import Tracking, WandB, legal


@pytest.fixture(autouse=True)
def no_service_of_another_test() -> Iterator[None]:
    """W&B's own process is told to those that are started later, by a variable."""
    import wandb

    os.environ.pop("WANDB_SERVICE", None)
    yield
    wandb.teardown()
    os.environ.pop("WANDB_SERVICE", None)


def records(path: Path) -> Iterator[Any]:
    """Records of a W&B offline file: LevelDB's log format after seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    place, whole = 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, size, kind = struct.unpack("<IHB", content[place : place + 7])
        whole += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def told(folder: Path) -> dict[str, Any]:
    """What the W&B files of a run folder say, all together."""
    found: dict[str, Any] = {"history": [], "summary": {}, "artifacts": {}, "ids": set()}
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in records(path):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                found["ids"].add(record.run.run_id)
                found["group"] = record.run.run_group
                found["config"] = {
                    item.key: json.loads(item.value_json) for item in record.run.config.update
                }
            elif kind == "history":
                row = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json)
                    for item in record.history.item
                }
                found["history"].append(row)
            elif kind == "summary":
                for item in record.summary.update:
                    name = item.key or "/".join(item.nested_key)
                    found["summary"][name] = json.loads(item.value_json)
            elif kind == "artifact":
                found["artifacts"][record.artifact.type] = json.loads(
                    record.artifact.metadata or "{}"
                )
            elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
                artifact = record.request.log_artifact.artifact
                found["artifacts"][artifact.type] = json.loads(artifact.metadata or "{}")
    return found


def test_weights_and_biases_is_told_everything_but_texts(
    cli: Cli, tmp_path: Path, toy: list[str]
) -> None:
    done = cli("run", "-m", "experiment=quickstart", "logger=wandb", *toy, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    (sweep,) = (tmp_path / "work" / "outputs" / "sweeps").iterdir()
    folder = sweep / "0"
    found = told(folder)
    assert found["group"] == sweep.name
    assert found["ids"] == {json.loads((folder / "wandb.json").read_text())["id"]}
    assert found["config"]["training"]["batch_size"] == 4
    losses = [row["train/loss"] for row in found["history"] if "train/loss" in row]
    manifest = json.loads((folder / "manifest.json").read_text())
    stages = {stage["stage"]: stage for stage in manifest["stages"]}
    assert len(losses) == stages["train"]["counts"]["steps"]
    metrics = json.loads((folder / "metrics.json").read_text())
    for name, value in metrics.items():
        assert found["summary"][name] == pytest.approx(value)
    judged = stages["judge"]["counts"]["judgments"]
    assert found["summary"]["stages/judge/judgments"] == judged
    media = {"/".join(key.split("/")[:2]) for row in found["history"] for key in row}
    assert {"tables/metrics", "tables/per_query", "tables/judges", "tables/won_and_lost"} <= media
    (won_and_lost,) = folder.glob("wandb/offline-run-*/files/media/table/tables/won_and_lost*.json")
    rows = json.loads(won_and_lost.read_text())["data"]
    gained = [row[3] for row in rows]
    assert gained == sorted(gained, reverse=True)
    gain = metrics["zelo/NDCG@10"] - metrics["start/NDCG@10"]
    assert sum(gained) / len(gained) == pytest.approx(gain)
    assert {f"figures/{name}" for name in ("systems", "elos", "loss", "after")} <= media
    dataset, model = found["artifacts"]["dataset"], found["artifacts"]["model"]
    assert model["data"] == dataset["fingerprint"] == stages["load"]["fingerprint"]
    judgments, ratings = found["artifacts"]["judgments"], found["artifacts"]["ratings"]
    assert ratings["fingerprint"] == stages["rate"]["fingerprint"]
    assert judgments["judgments"] == judged
    # From the model back to the data, by what each was made of.
    assert ratings["fingerprint"] in model["inputs"].values()
    assert judgments["fingerprint"] in ratings["inputs"].values()
    assert dataset["fingerprint"] in judgments["inputs"].values()
    assert model["zelo/NDCG@10"] == pytest.approx(metrics["zelo/NDCG@10"])

    # No text of a document or a query lies in anything that would be uploaded.
    work = tmp_path / "work"
    texts = read_table(work / stages["load"]["path"], "documents")["text"].to_pylist()
    texts += read_table(work / stages["load"]["path"], "queries")["text"].to_pylist()
    long = [text[:60].encode() for text in texts if len(text) > 60]
    assert len(long) > 20
    for path in folder.glob("wandb/**/*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(text in content for text in long), path


def test_a_collection_without_a_name_has_one_as_an_artifact() -> None:
    assert legal(None) == legal("") == "data"
    assert legal("my data/v2") == "my-data-v2"


def test_the_mode_of_the_environment_counts(cli: Cli, tmp_path: Path, toy: list[str]) -> None:
    """Whoever set it on a machine without a network has a key all the same."""
    key = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    words = ["run", "experiment=quickstart", "logger=wandb", *toy]
    done = cli(*words, **key, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "work" / "outputs" / "runs").iterdir()
    assert list(folder.glob("wandb/offline-run-*"))


def test_a_server_that_cannot_be_reached_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "3")
    tracking = Tracking(tracker=WandB(), folder=tmp_path)
    with pytest.raises(UserError, match=r"logger=wandb: CommError: .*; with logger\.mode=offline"):
        tracking("train")


@pytest.mark.parametrize("shared", [False, True])
def test_ranks_and_their_stage_are_one_run_of_weights_and_biases(
    cli: Cli, tmp_path: Path, toy: list[str], shared: bool
) -> None:
    """Also where all talk to a process of W&B's that was there before them."""
    if shared:
        import wandb

        wandb.setup()
        assert os.environ["WANDB_SERVICE"]
    folder, _ = run_folder(
        cli, tmp_path, "experiment=quickstart", "logger=wandb", *toy, "trainer.devices=2"
    )
    found = told(folder)
    assert len(found["ids"]) == 1
    assert any("train/loss" in row for row in found["history"])  # by a rank
    assert "zelo/NDCG@10" in found["summary"]  # by the run


HOLD = """
import sys, time, wandb
run = wandb.init(id=sys.argv[1], dir=sys.argv[2], mode="offline",
                 settings=wandb.Settings(silent=True, console="off"))
print("open", flush=True)
time.sleep(2)
run.finish()
"""


def test_a_run_that_its_rank_has_not_closed_yet_is_waited_for(tmp_path: Path) -> None:
    import lightning.pytorch.loggers  # which takes longer than the run is held
    import wandb

    assert lightning.pytorch.loggers.WandbLogger
    wandb.setup()  # the process of W&B that both talk to
    (tmp_path / "wandb.json").write_text('{"id": "held1"}')
    command = [sys.executable, "-c", HOLD, "held1", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as rank:
        assert rank.stdout is not None
        assert rank.stdout.readline() == "open\n"
        tracking = Tracking(tracker=WandB(mode="offline"), folder=tmp_path)
        opened = tracking("train").experiment
        assert opened.id == "held1"
        assert rank.wait() == 0
    opened.finish()


def test_tensorboard(cli: Cli, tmp_path: Path, toy: list[str]) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = run_folder(cli, tmp_path, "experiment=quickstart", "logger=tensorboard", *toy)
    events = EventAccumulator(str(folder / "logs" / "train")).Reload()
    assert len(events.Scalars("train/loss")) == 3
    results = EventAccumulator(str(folder / "logs" / "results")).Reload()
    metrics = json.loads((folder / "metrics.json").read_text())
    (event,) = results.Scalars("zelo/NDCG@10")
    assert event.value == pytest.approx(metrics["zelo/NDCG@10"])
