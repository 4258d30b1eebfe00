"""Trackers: where training metrics and results go besides the run folder."""

from __future__ import annotations

import atexit
import itertools
import json
import os
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import model_validator

from zelo.artifacts import read_json, read_table, write_json
from zelo.config import Component, option
from zelo.errors import UserError, in_words

if TYPE_CHECKING:
    from zelo.store import Artifact, Used

TABLES = {"judges": "ratings", "metrics": "metrics", "per_query": "metrics"}  # and whose they are
FILED = {"judge": "judgments", "rate": "ratings"}  # stages, and what W&B calls what they made
NOTHING: Mapping[str, Any] = MappingProxyType({})
IN_USE, CLOSED_WITHIN = "is in use", 60.0  # as W&B says it; seconds
SHOWN_METRIC = "NDCG@10"  # of which a tracker gets the value of every query


@dataclass(frozen=True)
class Outcome:
    """What a run came to; one that failed has neither results nor anything made."""

    used: Sequence[Used]  # its stages
    numbers: Mapping[str, float] = field(default_factory=dict)  # results
    made: Mapping[str, Artifact] = field(default_factory=dict)


@runtime_checkable
class Tracker(Protocol):
    """A tracker (`conf/logger/`)."""

    def lightning(self, run: Tracking, name: str) -> Any:
        """Lightning's logger for the training called `name`."""
        ...

    def finish(self, run: Tracking, outcome: Outcome) -> None:
        """Take what the run came to, and close."""
        ...


class Tracking(Component):
    """A tracker for one run: what stages take to log with."""

    tracker: Tracker = option(help="where metrics go")
    folder: Path = option(help="the run's own")
    config: str = option("{}", "the run's configuration, as JSON: it is told, not built again")
    group: str | None = option(None, "the sweep that the run belongs to")

    def __call__(self, name: str) -> Any:
        """Lightning's logger for the training called `name`, False on all ranks but the first."""
        from zelo.distributed.ranks import this_process

        if this_process().rank > 0:
            return False  # the first rank logs for all
        return self.tracker.lightning(self, name)

    def finish(self, outcome: Outcome) -> None:
        """Tell the tracker how the run ended."""
        self.tracker.finish(self, outcome)


class Csv(Component):
    """`logger=csv`: `logs/NAME/metrics.csv` in the run folder and nothing more.

    A training that goes on, or that of a second pass, writes to `logs/NAME-2` and so on.
    """

    def lightning(self, run: Tracking, name: str) -> Any:
        """Logger for one Lightning run, called `name`."""
        from lightning.pytorch.loggers import CSVLogger

        return CSVLogger(str(run.folder), name="logs", version=unused(run, name))

    def finish(self, run: Tracking, outcome: Outcome) -> None:
        """Results need no other place than the run folder."""


def unused(run: Tracking, name: str) -> str:
    """`name`, or it with the first number from 2 on that no training of this run has logged to."""
    logs = run.folder / "logs"
    names = itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2)))
    return next(each for each in names if not (logs / each).exists())


class TensorBoard(Component):
    """`logger=tensorboard`: event files in `logs/NAME` of the run folder, numbered as by `Csv`."""

    @model_validator(mode="after")
    def _installed(self) -> TensorBoard:
        if find_spec("tensorboard") is None:  # said before anything is paid for
            raise ValueError("logger=tensorboard needs the extra: pip install 'zelo[tensorboard]'")
        return self

    def lightning(self, run: Tracking, name: str) -> Any:
        """Logger for one Lightning run, called `name`."""
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(str(run.folder), name="logs", version=unused(run, name))

    def finish(self, run: Tracking, outcome: Outcome) -> None:
        """Write the results beside the training metrics."""
        if outcome.numbers:
            logger = self.lightning(run, "results")
            logger.log_metrics(dict(outcome.numbers))
            logger.finalize("success")


def won_and_lost(rows: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """Of each query its id, its values by the starting and by the trained model and the gain, those
    that gained most first."""
    of_query: dict[str, dict[str, float]] = {}
    for row in rows:
        of_query.setdefault(row["query_id"], {})[row["system"]] = row["value"]
    table = [
        [query_id, values["start"], values["zelo"], values["zelo"] - values["start"]]
        for query_id, values in of_query.items()
        if {"start", "zelo"} <= values.keys()
    ]
    return sorted(table, key=lambda line: (-line[3], line[0]))


class WandB(Component):
    """`logger=wandb`: Weights & Biases, one run per run folder, one group per sweep.

    It is told the configuration, training metrics, what stages took and counted, results, figures
    and tables of numbers, and which data and model they are of. Texts and weights stay here unless
    asked for.
    """

    project: str = option("zelo", "project that runs are filed under")
    entity: str | None = option(None, "team or user; default: the key's own")
    mode: str = option(
        "auto",
        "auto: as WANDB_MODE says; else online with a key, and offline without",
        pattern="^(auto|online|offline)$",
    )
    id: str | None = option(None, "run to go on with; null: a new one for each run folder")
    group: str | None = option(None, "runs that belong together; null: those of a sweep do")
    texts: bool = option(False, "upload the report too, which quotes queries")
    weights: bool = option(False, "upload the trained model too")

    def lightning(self, run: Tracking, name: str) -> Any:
        """Logger for one Lightning run; metrics of any but the shipped model's bear its name."""
        from lightning.pytorch.loggers import WandbLogger

        from zelo.distributed.ranks import this_process

        opened = self._run(run)
        if this_process().world_size > 1:
            # Nobody calls `finish` in a rank, and by itself W&B closes a run at the end only where
            # the process that writes it was started for this one.
            atexit.register(opened.finish)
        return WandbLogger(experiment=opened, prefix="" if name == "train" else name)

    def finish(self, run: Tracking, outcome: Outcome) -> None:
        """Write the results and close the run, which one that failed early never opened."""
        import wandb

        made = outcome.made
        if not made and wandb.run is None:
            return
        opened = self._run(run)
        for name, value in (stage_numbers(outcome.used) | dict(outcome.numbers)).items():
            opened.summary[name] = value
        if made:
            opened.log(self._media(made))
            self._file(opened, outcome)
        opened.finish(exit_code=0 if made else 1)

    def check(self) -> None:
        """`UserError` where it is to log online and has no key."""
        if self._mode() == "online" and not has_key():
            raise UserError(
                "logger.mode=online: W&B has no key; `wandb login`, WANDB_API_KEY, or "
                "logger.mode=offline"
            )

    def _run(self, run: Tracking) -> Any:
        """The W&B run of this run folder, opened on first use; a rank's and its stage's are one."""
        import wandb

        if wandb.run is not None:
            return wandb.run
        kept = run.folder / "wandb.json"
        if not kept.is_file():
            write_json(kept, {"id": self.id or secrets.token_hex(4)})
        mode = self._mode()
        try:
            return opened_when_free(
                project=self.project,
                entity=self.entity,
                id=read_json(kept)["id"],
                resume="allow" if mode == "online" else None,
                group=self.group or run.group,
                dir=str(run.folder),
                mode=mode,
                config=json.loads(run.config),
                name=run.folder.name if run.group is None else f"{run.group}/{run.folder.name}",
                settings=wandb.Settings(silent=True, console="off"),
            )
        except wandb.errors.Error as error:  # no way to the server, or no leave to enter
            raise UserError(
                f"logger=wandb: {in_words(error)}; with logger.mode=offline all stays here until "
                f"`wandb sync`, and the same command goes on where it stopped"
            ) from None

    def _mode(self) -> str:
        """How W&B is to run: as the option says, or the user's WANDB_MODE, or by the key."""
        if self.mode != "auto":
            return self.mode
        said = os.environ.get("WANDB_MODE", "").lower()
        if said in ("online", "offline", "disabled"):
            return said
        return "online" if has_key() else "offline"

    def _media(self, made: Mapping[str, Artifact]) -> dict[str, Any]:
        """Figures and tables of the report, in numbers and ids alone unless texts are asked for."""
        import wandb

        media: dict[str, Any] = {}
        for table, source in TABLES.items():
            if made[source].complete:
                rows = read_table(made[source].path, table).to_pylist()
                if table == "per_query":
                    rows = [row for row in rows if row["metric"] == SHOWN_METRIC]
                    media["tables/won_and_lost"] = wandb.Table(
                        columns=["query_id", "start", "zelo", "gain"], data=won_and_lost(rows)
                    )
                columns = list(rows[0]) if rows else []
                data = [list(row.values()) for row in rows]
                media[f"tables/{table}"] = wandb.Table(columns=columns, data=data)
        if made["report"].complete:
            for path in sorted((made["report"].path / "figures").glob("*.svg")):
                svg = path.read_text(encoding="utf-8")
                media[f"figures/{path.stem}"] = wandb.Html(svg, inject=False)
            if self.texts:
                page = (made["report"].path / "report.html").read_text(encoding="utf-8")
                media["report"] = wandb.Html(page, inject=False)
        return media

    def _file(self, opened: Any, outcome: Outcome) -> None:
        """Data, judgments, ratings and model as artifacts of W&B: the data are an input of the run,
        the others its outputs.

        The metadata of each has its fingerprint and those of what it was made of (`inputs`), by
        which one is followed to the other. Without a connection W&B knows no inputs; the data are
        then filed beside the others.
        """

        from zelo.training.trainable import MODEL

        data, trained = outcome.made["data"], outcome.made["trained"]
        if not (data.complete and trained.complete):
            return
        name = legal(data.record["options"]["source"].get("name"))
        dataset = self._artifact(name, "dataset", data)
        if opened.offline:
            opened.log_artifact(dataset)
        else:
            opened.use_artifact(dataset)
        for used in outcome.used:
            kind = FILED.get(used.artifact.stage)
            if kind is not None and used.artifact.complete:
                named = f"{name}-{legal(used.label)}"
                opened.log_artifact(self._artifact(named, kind, used.artifact))
        more = {"data": data.fingerprint, **outcome.numbers}
        model = self._artifact(f"{name}-model", "model", trained, more)
        if self.weights:
            model.add_dir(str(trained.path / MODEL))
        opened.log_artifact(model)

    def _artifact(
        self, name: str, kind: str, artifact: Artifact, more: Mapping[str, Any] = NOTHING
    ) -> Any:
        """What a stage made, in numbers alone."""
        import wandb

        record = artifact.record
        about = {"fingerprint": artifact.fingerprint, "inputs": record["inputs"],
                 **record["counts"], **more}  # fmt: skip
        made = wandb.Artifact(name, type=kind, metadata=about)
        with made.new_file(f"{kind}.json") as file:
            json.dump(about, file)
        return made


def opened_when_free(**options: Any) -> Any:
    """The W&B run that `wandb.init` opens with these options.

    A rank has ended before W&B's own process has closed what it wrote to; until then that process
    says that the run is in use.
    """
    import wandb

    end = time.monotonic() + CLOSED_WITHIN
    while True:
        try:
            return wandb.init(**options)
        except Exception as error:
            if IN_USE not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.2)


def has_key() -> bool:
    """Whether W&B knows who logs."""
    import wandb

    return bool(os.environ.get("WANDB_API_KEY") or wandb.api.api_key)


def stage_numbers(used: Sequence[Used]) -> dict[str, float]:
    """Seconds and counts of every stage of a run under flat names (`stages/train/steps`)."""
    numbers: dict[str, float] = {}
    for entry in used:
        if not entry.artifact.complete:
            continue
        record = entry.artifact.record
        numbers[f"stages/{entry.label}/seconds"] = record["seconds"]
        for name, value in record["counts"].items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                numbers[f"stages/{entry.label}/{name}"] = value
    return numbers


def legal(name: str | None) -> str:
    """A name as W&B takes it for an artifact; a folder in BEIR layout may have none."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name or "")[:100] or "data"
