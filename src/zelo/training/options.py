"""Options of optimisation and of the Lightning trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zelo.config import Component, option
from zelo.errors import UserError


class TrainingOptions(Component):
    """How long and how fast a model learns."""

    epochs: int = option(1, "passes over the training queries or pairs", ge=1)
    max_steps: int | None = option(None, "stop after so many; the rate falls to 0 by then", ge=1)
    learning_rate: float = option(1e-4, "peak rate of AdamW", gt=0)
    warmup: float = option(0.1, "share of the steps over which the rate rises from 0", ge=0, lt=1)
    weight_decay: float = option(0.01, "AdamW's weight decay", ge=0)
    clip: float = option(1.0, "largest norm of the gradient", gt=0)
    batch: int = option(4, "queries (train) or pairs (distil) per step", ge=1)
    candidates: int | None = option(
        None, "rated documents per query, drawn anew each epoch; null for all", ge=2
    )
    frozen_layers: int = option(
        0, "lowest layers that stay as they are, and the embeddings with them; 0 for none", ge=0
    )
    chunk: int = option(16, "texts per forward pass, of similar length", ge=1, exclude=True)
    held_out: float = option(
        0.0,
        "share of the rated queries, by a hash of their text, that validate and do not train",
        ge=0,
        lt=1,
    )
    validate_every: int = option(50, "steps between validations", ge=1, exclude=True)
    checkpoint_minutes: float = option(1.0, "minutes between checkpoints", gt=0, exclude=True)

    def steps(self, batches: int) -> int:
        """Steps of the whole training, with so many batches per epoch."""
        return min(self.epochs * batches, self.max_steps or self.epochs * batches)

    def reads(self, items: float) -> float:
        """Queries or pairs read in the whole training, of so many per epoch."""
        every = self.epochs * items
        return every if self.max_steps is None else min(every, self.max_steps * self.batch)


class LightningTrainer(Component):
    """Devices and precision, by `lightning.Trainer` (`conf/trainer/`)."""

    accelerator: str = option(
        "cpu", "cpu, gpu, auto", exclude=True, pattern="^(cpu|gpu|cuda|mps|auto)$"
    )
    devices: int = option(1, "so far every stage runs on one device", ge=1, le=1, exclude=True)
    precision: str = option(
        "32-true",
        "Lightning's precision",
        pattern="^(32-true|16-mixed|bf16-mixed|16-true|bf16-true)$",
    )

    def check(self) -> None:
        """Raise `UserError` where this machine lacks the device, before anything has run."""
        if self.accelerator in ("gpu", "cuda"):
            import torch

            if not torch.cuda.is_available():
                raise UserError(
                    f"trainer.accelerator={self.accelerator}: no CUDA device is available; choose "
                    f"trainer=cpu"
                )

    def build(
        self,
        folder: Path,
        steps: int,
        training: TrainingOptions,
        logger: Any,
        callbacks: list[Any],
    ) -> Any:
        """A `lightning.Trainer` that works in `folder` for `steps` steps."""
        from lightning.pytorch import Trainer

        return Trainer(
            accelerator=self.accelerator,
            devices=self.devices,
            precision=self.precision,
            max_steps=steps,
            max_epochs=-1,
            gradient_clip_val=training.clip,
            default_root_dir=str(folder),
            logger=logger,
            callbacks=callbacks,
            log_every_n_steps=1,
            enable_model_summary=False,
            enable_progress_bar=False,
            use_distributed_sampler=False,
            reload_dataloaders_every_n_epochs=0,
            num_sanity_val_steps=0,
            check_val_every_n_epoch=None,  # validation counts steps, over epochs
            val_check_interval=min(training.validate_every, steps),
        )
