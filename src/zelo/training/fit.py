"""One training run by Lightning: checkpoints, resume, loss curve, progress."""

from __future__ import annotations

import logging
import signal
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from zelo.artifacts import table, write_table
from zelo.errors import UserError
from zelo.progress import Progress
from zelo.training.options import LightningTrainer, TrainingOptions


def fit(
    module: LightningModule,
    data: LightningDataModule,
    out: Path,
    steps: int,
    training: TrainingOptions,
    trainer: LightningTrainer,
    logger: Any,
    what: str,
) -> float:
    """Train `module` for `steps` steps, from the last checkpoint in `out` if there is one.

    Writes the `losses` of every step. Checkpoints lie in `out/checkpoints` until the end, so that
    a killed run goes on from the last of them. Returns the mean loss of the last tenth of the
    steps. Raises `UserError` where the loss is not a finite number.
    """
    quiet_lightning()
    checkpoints = out / "checkpoints"
    curve = LossCurve(steps, what)
    saver = ModelCheckpoint(
        dirpath=checkpoints,
        save_last=True,
        save_top_k=0,
        train_time_interval=timedelta(minutes=training.checkpoint_minutes),
    )
    last = checkpoints / "last.ckpt"
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        trainer.build(out, steps, training, logger, [saver, curve]).fit(
            module, data, ckpt_path=str(last) if last.exists() else None
        )
    except SystemExit:  # what Lightning makes of an interrupt, with further ones ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None
    write_table(
        out,
        "losses",
        table("losses", step=list(range(1, len(curve.losses) + 1)), loss=curve.losses),
    )
    tail = curve.losses[-max(len(curve.losses) // 10, 1) :]
    return sum(tail) / len(tail)


def validate(
    module: LightningModule, data: LightningDataModule, trainer: LightningTrainer
) -> dict[str, float]:
    """What `module`, as it is, logs on held-out queries: `val/NDCG@10`, `val/loss`."""
    checker = Trainer(
        accelerator=trainer.accelerator,
        devices=trainer.devices,
        precision=trainer.precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    (found,) = checker.validate(module, datamodule=data, verbose=False)
    return {name: round(value, 4) for name, value in found.items()}


class LossCurve(Callback):  # type: ignore[misc]
    """Keeps the loss of every step, over resumes too, and shows progress."""

    def __init__(self, steps: int, what: str) -> None:
        self.losses: list[float] = []
        self.progress = Progress(steps, what)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep and check the loss."""
        loss = float(outputs["loss"])
        if loss != loss or loss in (float("inf"), float("-inf")):
            raise UserError(
                f"training: the loss became {loss} at step {len(self.losses) + 1}: lower "
                f"training.learning_rate or training.clip"
            )
        self.losses.append(loss)
        self.progress.show(len(self.losses), f"loss {loss:.4f}")

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Clear the bar."""
        self.progress.close()

    def on_exception(
        self, trainer: Trainer, module: LightningModule, exception: BaseException
    ) -> None:
        """Clear the bar."""
        self.progress.close()

    def state_dict(self) -> dict[str, Any]:
        """Go into the checkpoint."""
        return {"losses": list(self.losses)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Come out of it."""
        self.losses = list(state_dict["losses"])


def quiet_lightning() -> None:
    """Silence Lightning's banners; its warnings about settings made on purpose go too."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in (
        ".*does not have many workers.*",
        ".*in eval mode at the start of training.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*LeafSpec.*",
        ".*lr_scheduler.step.*",
        ".*Total length of `DataLoader` across ranks is zero.*",  # no query is held out
    ):
        warnings.filterwarnings("ignore", text)
