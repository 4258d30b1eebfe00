"""What Hydra tells of a sweep before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from zelo.runs.sweep_folder import begin_sweep, how_it_draws

sweeps: list[Path] = []  # folders of the sweeps that this process has started
told: list[str] = []  # words of the command that runs in this process


class NoteSweep(Callback):
    """Keeps the sweep's folder, whose jobs may run in other processes and on other machines."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Called once, before the first job."""
        folder = Path(config.hydra.sweep.dir)
        begin_sweep(folder, told, how_it_draws(config.hydra.sweeper))
        sweeps.append(folder)
