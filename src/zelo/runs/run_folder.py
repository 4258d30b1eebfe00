"""One run and its folder: manifest, results on the screen, copies of what a user takes away."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from zelo.artifacts import read_json, write_json, writing_below
from zelo.config import build_from, describe
from zelo.errors import UserError
from zelo.finished_run import MANIFEST
from zelo.models.embedding_store import embeddings_kept
from zelo.models.fusion import FUSION
from zelo.models.pretrained import ModelNotFoundError
from zelo.pipeline import run_stages
from zelo.progress import say
from zelo.reporting.passes import pass_summary, passes, print_passes
from zelo.reporting.results import (
    ndcg_of_trained,
    print_cost,
    print_results,
    print_what_ships,
    summary,
)
from zelo.run_config import STAGE_NAMES, Run
from zelo.runs.gpu_turns import keep_to_a_share, turn_on_gpus
from zelo.store import RECORD, Artifact, Store, Used
from zelo.training.loggers import Outcome, Tracking
from zelo.training.trainable import MODEL
from zelo.versions import code_version, package_versions

OUTPUTS = ("report.html", "metrics.json", "runs", MODEL)  # what is copied out of the store
LINKED = "judgments*", "*_judgments", "ratings"  # names of what is linked to


def execute(
    config: DictConfig,
    folder: Path,
    overrides: Sequence[str] = (),
    group: str | None = None,
    side_by_side: bool = False,
) -> float | None:
    """Run a composed configuration; what it made is in `folder`, which must exist.

    `overrides` are those that it was composed with, `group` the sweep that it belongs to, whose
    runs share the machine's GPUs where they are `side_by_side`. Returns NDCG@10 of the trained
    model where it was evaluated. Raises `UserError`; the manifest then says so.
    """
    started, began = time.time(), time.monotonic()
    how = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "overrides": list(overrides),
    }
    try:
        run: Run = build_from(config)
        if side_by_side:
            keep_to_a_share(run.trainer.devices)
        run.trainer.check()
        describe(run.data)  # what is wrong with the data is said before a model is fetched
        described = json.dumps(describe(run))
    except UserError as error:
        if isinstance(error, ModelNotFoundError):
            error = error.named(OmegaConf.to_container(config, resolve=True))
        if group is not None:  # a sweep tells which of its jobs failed
            write_json(folder / MANIFEST, {"status": "failed", "error": str(error), **how})
        elif not any(folder.iterdir()):
            folder.rmdir()
        raise error from None

    @contextmanager
    def around(arguments: Mapping[str, Any]) -> Iterator[None]:
        with embeddings_kept(run.home, run.embeddings_gib), turn_on_gpus(arguments, say):
            yield

    store = Store(run.home / "store", frozenset(run.stages or STAGE_NAMES), say, around=around)
    about = {
        **how,
        "seed": run.seed,
        "config": OmegaConf.to_container(config, resolve=True),
        "code": code_version(),
        "python": sys.version,
        "platform": platform.platform(),
        "packages": package_versions(),
    }
    manifest = {"status": "running", "started": started, **about}
    with alone(folder):
        return _execute(run, store, folder, manifest, group, described, began)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Be the only run that writes into a folder; `UserError` where another one does."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{folder}: another run is writing into it; name another folder") from None
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


def _execute(
    run: Run,
    store: Store,
    folder: Path,
    manifest: dict[str, Any],
    group: str | None,
    described: str,
    began: float,
) -> float | None:
    """What `execute` does in a folder of its own."""
    clear(folder, manifest["config"])
    write_json(folder / MANIFEST, manifest)
    status = "failed"
    tracking = Tracking(tracker=run.logger, folder=folder, config=described, group=group)
    try:
        artifacts = run_stages(run, store, tracking, manifest["overrides"])
        whole = {name: artifact.path for name, artifact in artifacts.items() if artifact.complete}
        passed = passes(whole, run.evaluation.resamples, run.seed)
        numbers = summary(artifacts["metrics"]) | pass_summary(passed)
        manifest["results"] = numbers
        with writing_below(folder):
            copy_out(artifacts, numbers, folder)
            link_tables(artifacts, folder)
        tracking.finish(Outcome(store.used, numbers, artifacts))
        status = "done"
    except Exception as error:
        manifest["error"] = str(error) if isinstance(error, UserError) else repr(error)
        raise
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        if status != "done":
            tracking.finish(Outcome(store.used))
        manifest |= {"status": status, "seconds": round(time.monotonic() - began, 2)}
        with suppress(UserError) if status != "done" else nullcontext():  # what came first is said
            write_json(folder / MANIFEST, {**manifest, **stages_and_cost(store.used)})
    print_cost(store.used, time.monotonic() - began)
    print_what_ships(artifacts["trained"])
    if artifacts["metrics"].complete:
        print_results(artifacts["metrics"], artifacts["trained"])
    print_passes(passed)
    print_paths(artifacts, folder)
    return ndcg_of_trained(artifacts["metrics"])


def clear(folder: Path, config: Any) -> None:
    """Remove what a run of another configuration left in a folder, which would pass for this one's;
    the store still has it."""
    try:
        before = read_json(folder / MANIFEST, "config")["config"]
    except UserError:
        return  # there was none, or it came to nothing
    if before == json.loads(json.dumps(config)):
        return
    left = [path for name in OUTPUTS if (path := folder / name).exists()] + linked_tables(folder)
    if left:
        say(f"{shorter(folder)}: what a run of another configuration left there is replaced")
    for path in left:
        remove(path)


def remove(path: Path) -> None:
    """Remove a file, a folder with all that is in it, or a link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def stages_and_cost(used: list[Used]) -> dict[str, Any]:
    """What each stage was, took and cost, for the manifest."""
    stages = []
    for entry in used:
        done = entry.artifact.complete
        record = entry.artifact.record if done else {}
        stages.append(
            {
                "stage": entry.artifact.stage,
                "label": entry.label,
                "fingerprint": entry.artifact.fingerprint,
                "path": str(entry.artifact.path),
                "made_by_this_run": entry.made,
                "complete": done,
                "seconds": record.get("seconds"),
                "counts": record.get("counts", {}),
                "files": record.get("files"),
            }
        )
    return {"stages": stages}


def copy_out(artifacts: dict[str, Artifact], numbers: dict[str, float], folder: Path) -> None:
    """Copy report, model with its card, metrics and TREC runs from the store into `folder`."""
    if artifacts["trained"].complete:
        shutil.copytree(artifacts["trained"].path / MODEL, folder / MODEL, dirs_exist_ok=True)
        if artifacts["fusion"].complete:
            shutil.copy(artifacts["fusion"].path / FUSION, folder / MODEL)
    if artifacts["metrics"].complete:
        write_json(folder / "metrics.json", numbers)
        shutil.copytree(artifacts["metrics"].path / "runs", folder / "runs", dirs_exist_ok=True)
    if artifacts["report"].complete:
        shutil.copy(artifacts["report"].path / "report.html", folder)
        if artifacts["trained"].complete:
            shutil.copy(artifacts["report"].path / "README.md", folder / MODEL)


def link_tables(artifacts: Mapping[str, Artifact], folder: Path) -> None:
    """Put links to the ratings, and to the judgments that were made for them, into `folder`.

    Links are relative, so that runs and store can be moved together. Where the file system has
    none, the tables are copied.
    """
    for left in linked_tables(folder):
        remove(left)
    tables = {"ratings": artifacts["ratings"]}
    for name, artifact in artifacts.items():
        if artifact.stage == "judge":
            tables[name if "judgments" in name else f"{name}_judgments"] = artifact
    for name, artifact in tables.items():
        if not artifact.complete:
            continue
        try:
            there = os.path.relpath(artifact.path.resolve(), folder.resolve())
            (folder / name).symlink_to(there, target_is_directory=True)
        except (OSError, ValueError):  # ValueError: it lies on another drive
            shutil.copytree(artifact.path, folder / name)


def linked_tables(folder: Path) -> list[Path]:
    """What `link_tables` has put into `folder`, and nothing of the user's."""
    named = [path for name in LINKED for path in folder.glob(name)]
    return [path for path in named if path.is_symlink() or (path / RECORD).is_file()]


def print_paths(artifacts: dict[str, Artifact], folder: Path) -> None:
    """Say where the report, the model and the run folder are."""
    short = shorter(folder)
    rows = [("report", "report.html", "report"), ("trained", MODEL, "model")]
    for key, name, title in rows:
        if artifacts[key].complete:
            print(f"{title:>10}  {short / name}")
    print(f"{'run folder':>10}  {short}", flush=True)


def shorter(path: Path) -> Path:
    """`path` from the working directory where it lies below it."""
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
