"""Checkpoints: which are kept, and how they are written."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from zelo.artifacts import read_json, replacing, write_json
from zelo.errors import UserError, in_words
from zelo.progress import say
from zelo.training.base_module import READ_AT_ONCE
from zelo.training.never_worse import write_values

CHECKPOINTS, TOKENS = "checkpoints", "tokens"  # folders within the stage's output
WATCHED = "val/NDCG@10"  # the weights that ship are the best by it


def of_all_ranks(own: dict[str, float]) -> dict[str, float]:
    """What every rank has of something, on every rank."""
    if not torch.distributed.is_initialized():
        return own
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, own)
    return {key: part[key] for part in parts for key in sorted(part)}


class AtomicCheckpointIO(TorchCheckpointIO):  # type: ignore[misc]
    """Writes a checkpoint under a temporary name beside it, and renames it.

    Lightning's own goes by way of the system's temporary folder: on another file system it is
    copied from there, and a kill leaves half a checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write it whole or not at all."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def drop_damaged(out: Path) -> None:
    """Remove what a training in `out` would go on from, where it cannot be read: it is made anew.

    Checkpoints go together, since one says what the others mean.
    """
    from zelo.models.tokens import TokenFile

    folder = out / CHECKPOINTS
    keys = {"best.json": ("best", "step"), "begun.json": ("accumulate_grad_batches", "fsdp")}
    try:
        for path in sorted(folder.glob("*.ckpt")):
            if path.is_file():  # sharded ones are folders
                torch.load(path, map_location="cpu", weights_only=True)
        for path in sorted(folder.glob("*.json")):
            read_json(path, *keys.get(path.name, ()))
        if (folder / "best.json").exists() and not (folder / "best.ckpt").exists():
            raise UserError("best.ckpt is missing")
    except Exception as error:
        say(f"the training begins anew, a checkpoint cannot be read: {in_words(error)}")
        shutil.rmtree(folder)
    try:
        for path in sorted((out / TOKENS).rglob("*.arrow")):
            TokenFile(path)
    except Exception as error:
        say(f"texts are tokenised again, their file cannot be read: {in_words(error)}")
        shutil.rmtree(out / TOKENS)


class ResumableCheckpoint(Callback):  # type: ignore[misc]
    """Keeps `last.ckpt`, to go on from, and `best.ckpt`, the weights that validated best; and what
    each held-out query came to in every validation.

    Both are written whole or not at all, and between steps: what has been accumulated of one is
    in no checkpoint.
    """

    def __init__(self, folder: Path, minutes: float) -> None:
        self.folder, self.seconds = folder, 60 * minutes
        self.best: float | None = None
        self.step = self.seen = 0
        self.validated = -1  # step of the last validation within training
        self.saved = time.monotonic()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Go on from the step that training stands at, and from the best that is on the disk.

        A checkpoint may be older than `best.ckpt`, whose validation is then not done again.
        """
        self.seen = trainer.global_step
        about = self.folder / "best.json"
        if trainer.ckpt_path and about.is_file():
            kept = read_json(about)
            self.best, self.step = kept["best"], kept["step"]

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write `last.ckpt` every so often."""
        if trainer.global_step == self.seen:
            return
        self.seen = trainer.global_step
        due = time.monotonic() - self.saved >= self.seconds
        if trainer.world_size > 1:
            # The first rank says when: the others wait for it, and it for its device.
            if trainer.global_step % READ_AT_ONCE[module.device.type]:
                return
            due = trainer.strategy.broadcast(due)
        if due:
            trainer.save_checkpoint(self.folder / "last.ckpt")
            self.saved = time.monotonic()

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep each query's value, and write `best.ckpt` where this was the best step so far."""
        values = of_all_ranks(module.query_ndcg)
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_values(self.folder, trainer.global_step, values)
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return  # after training, or before it
        self.validated = trainer.global_step
        value = float(trainer.callback_metrics[WATCHED])
        if self.best is None or value > self.best:
            self.best, self.step = value, trainer.global_step
            trainer.save_checkpoint(self.folder / "best.ckpt", weights_only=True)
            if trainer.is_global_zero:
                write_json(self.folder / "best.json", {"best": self.best, "step": self.step})
