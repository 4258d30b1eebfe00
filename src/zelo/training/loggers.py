"""Trackers: where training metrics and results go besides the run folder."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from zelo.config import Component, option


@runtime_checkable
class Tracker(Protocol):
    """A tracker (`conf/logger/`)."""

    def lightning(self, folder: Path, name: str, *, config: Mapping[str, Any]) -> Any:
        """Lightning's logger for the training called `name` in the run folder `folder`."""
        ...

    def finish(self, folder: Path, config: Mapping[str, Any], summary: Mapping[str, float]) -> None:
        """Take the results of the run, none where it failed, and close."""
        ...


class Tracking(Component):
    """A tracker for one run folder: what stages take to log with."""

    tracker: Tracker = option(help="where metrics go")
    folder: Path = option(help="the run's own")
    config: str = option("{}", "the run's configuration, as JSON: it is told, not built again")

    def __call__(self, name: str) -> Any:
        """Lightning's logger for the training called `name`, False on all ranks but the first."""
        from zelo.training.ranks import place

        if place()[0] > 0:
            return False  # the first rank logs for all
        return self.tracker.lightning(self.folder, name, config=json.loads(self.config))


class Csv(Component):
    """`logger=csv`: `logs/NAME/metrics.csv` in the run folder and nothing more."""

    def lightning(self, folder: Path, name: str, *, config: Mapping[str, Any]) -> Any:
        """Logger for one Lightning run, called `name`."""
        from lightning.pytorch.loggers import CSVLogger

        return CSVLogger(str(folder), name="logs", version=name)

    def finish(self, folder: Path, config: Mapping[str, Any], summary: Mapping[str, float]) -> None:
        """Results need no other place than the run folder."""


class WandB(Component):
    """`logger=wandb`: Weights & Biases, one run per run folder."""

    project: str = option("zelo", "project that runs are filed under")
    entity: str | None = option(None, "team or user; default: the key's own")
    mode: str = option(
        "auto", "auto is online with a key, else offline", pattern="^(auto|online|offline)$"
    )

    def lightning(self, folder: Path, name: str, *, config: Mapping[str, Any]) -> Any:
        """Logger for one Lightning run; its metrics are prefixed by `name`."""
        from lightning.pytorch.loggers import WandbLogger

        return WandbLogger(experiment=self._run(folder, config), prefix=name)

    def finish(self, folder: Path, config: Mapping[str, Any], summary: Mapping[str, float]) -> None:
        """Write the results and close the run, which one that failed early never opened."""
        import wandb

        if not summary and wandb.run is None:
            return
        run = self._run(folder, config)
        for name, value in summary.items():
            run.summary[name] = value
        run.finish()

    def _run(self, folder: Path, config: Mapping[str, Any]) -> Any:
        """The W&B run of this run folder, opened on first use."""
        import wandb

        if wandb.run is not None:
            return wandb.run
        mode = self.mode
        if mode == "auto":
            known = os.environ.get("WANDB_API_KEY") or wandb.api.api_key
            mode = "online" if known else "offline"
        return wandb.init(
            project=self.project,
            entity=self.entity,
            dir=str(folder),
            mode=mode,  # type: ignore[arg-type]
            config=dict(config),
            name=folder.name,
            settings=wandb.Settings(silent=True, console="off"),
        )
