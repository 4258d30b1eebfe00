"""Options of optimisation and of the Lightning trainer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from zelo.config import Component, option
from zelo.errors import UserError


class TrainingOptions(Component):
    """How long and how fast a model learns."""

    max_epochs: int = option(1, "passes over the training queries or pairs", ge=1)
    max_steps: int | None = option(None, "stop after so many; the rate falls to 0 by then", ge=1)
    learning_rate: float = option(1e-4, "peak rate of AdamW", gt=0)
    warmup_ratio: float = option(
        0.1, "share of the steps over which the rate rises from 0", ge=0, lt=1
    )
    weight_decay: float = option(0.01, "AdamW's weight decay", ge=0)
    gradient_clip_val: float = option(1.0, "largest norm of the gradient", gt=0)
    batch_size: int = option(4, "queries (train) or pairs (distil) per step, of all devices", ge=1)
    docs_per_query: int | None = option(
        16, "rated documents per query, drawn anew each epoch; null for all", ge=2
    )
    frozen_layers: int = option(
        0, "lowest layers that stay as they are, and the embeddings with them; 0 for none", ge=0
    )
    stderr_weights: bool = option(
        False, "weigh each document by the standard error of its Elo (objectives on targets)"
    )
    max_tokens_per_forward: int | None = option(
        None,
        "tokens per forward pass, of scoring too, padding included; null: 2,048 on a CPU, 32,768 "
        "on a GPU",
        ge=1,
        exclude=True,
    )
    accumulate_grad_batches: int = option(
        1, "parts of a step's batch, whose gradients are summed", ge=1, exclude=True
    )
    gradient_cache: bool = option(
        False,
        "hold the activations of one forward pass at a time, for the price of one more",
        exclude=True,
    )
    compile: bool = option(False, "compile the transformer by torch.compile", exclude=True)
    validation_fraction: float = option(
        0.0,
        "share of the rated queries, by a hash of their text, that validate and do not train",
        ge=0,
        lt=1,
    )
    validate_every: int = option(50, "steps between validations", ge=1, exclude=True)
    checkpoint_minutes: float = option(1.0, "minutes between checkpoints", gt=0, exclude=True)

    def steps(self, batches: int) -> int:
        """Steps of the whole training, with so many batches per epoch."""
        return min(self.max_epochs * batches, self.max_steps or self.max_epochs * batches)

    def reads(self, items: float) -> float:
        """Queries or pairs read in the whole training, of so many per epoch."""
        every = self.max_epochs * items
        return every if self.max_steps is None else min(every, self.max_steps * self.batch_size)


class LightningTrainer(Component):
    """Devices and precision, by `lightning.Trainer` (`conf/trainer/`)."""

    accelerator: str = option(
        "cpu", "cpu, gpu, auto", exclude=True, pattern="^(cpu|gpu|cuda|mps|auto)$"
    )
    devices: int = option(1, "devices of each machine; training uses all", ge=1, exclude=True)
    num_nodes: int = option(1, "machines of a SLURM allocation", ge=1, exclude=True)
    strategy: str = option(
        "ddp",
        "how devices share a model: ddp, each has all of it; fsdp (2), each has a part",
        pattern="^(ddp|fsdp)$",
        exclude=True,
    )
    precision: str = option(
        "32-true",
        "Lightning's precision",
        pattern="^(32-true|16-mixed|bf16-mixed)$",
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
            if self.devices > torch.cuda.device_count():
                raise UserError(
                    f"trainer.devices={self.devices}: this machine has {torch.cuda.device_count()}"
                )
            emulated = False  # which would be no faster than 32 bits
            if self.precision == "bf16-mixed" and not torch.cuda.is_bf16_supported(emulated):
                raise UserError(
                    "trainer.precision=bf16-mixed: this GPU does not compute in bfloat16; choose "
                    "16-mixed or 32-true"
                )
        if self.precision == "16-mixed":
            if self.accelerator == "cpu":
                raise UserError(
                    "trainer.precision=16-mixed: a CPU does not compute in it; choose bf16-mixed, "
                    "or 32-true"
                )
            if self.strategy == "fsdp" and self.processes > 1:
                raise UserError(
                    "trainer.precision=16-mixed: trainer.strategy=fsdp does not compute in it; "
                    "choose bf16-mixed"
                )
        if self.num_nodes > 1:
            self._find_nodes()

    def _find_nodes(self) -> None:
        """`UserError` where this is no SLURM allocation of as many machines."""
        if shutil.which("srun") is None:
            raise UserError(
                f"trainer.num_nodes={self.num_nodes}: srun was not found; more than one machine "
                f"needs SLURM (hydra/launcher=submitit_slurm), trainer.num_nodes=1 does without"
            )
        nodes = os.environ.get("SLURM_JOB_NUM_NODES") or os.environ.get("SLURM_NNODES")
        if nodes is not None and int(nodes) < self.num_nodes:
            raise UserError(
                f"trainer.num_nodes={self.num_nodes}: this SLURM job has {nodes}; ask for as many "
                f"(hydra.launcher.nodes, sbatch --nodes)"
            )

    @property
    def processes(self) -> int:
        """Devices of all machines; each has a process."""
        return self.devices * self.num_nodes

    def device(self, local: int) -> Any:
        """The `local`th device of this machine, a `torch.device`."""
        import torch

        if self.accelerator not in ("cpu", "mps") and torch.cuda.is_available():
            return torch.device("cuda", local)
        return torch.device("mps" if self.accelerator == "mps" else "cpu")

    def autocast(self, device: Any) -> Any:
        """Context that computes in the trainer's precision, by hand."""
        import torch

        half = torch.bfloat16 if self.precision == "bf16-mixed" else torch.float16
        return torch.autocast(device.type, half, enabled=self.precision != "32-true")

    def tokens(self, training: TrainingOptions) -> int:
        """Tokens per forward pass: small enough for a CPU's caches, large enough for a GPU."""
        return training.max_tokens_per_forward or (2048 if self.accelerator == "cpu" else 32768)

    def share_model(self) -> Any:
        """Lightning's strategy."""
        if self.processes == 1:
            return "auto"
        if self.strategy == "ddp":
            from lightning.pytorch.strategies import DDPStrategy

            backend = "gloo" if self.accelerator == "cpu" else None
            return DDPStrategy(process_group_backend=backend, gradient_as_bucket_view=True)
        from lightning.pytorch.strategies import ModelParallelStrategy

        return ModelParallelStrategy(
            data_parallel_size=self.processes,
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
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

        from zelo.training.checkpoints import WholeFiles
        from zelo.training.ranks import environment

        return Trainer(
            accelerator=self.accelerator,
            devices=self.devices,
            num_nodes=self.num_nodes,
            strategy=self.share_model(),
            precision=self.precision,
            accumulate_grad_batches=training.accumulate_grad_batches,
            max_steps=steps,
            max_epochs=-1,
            gradient_clip_val=training.gradient_clip_val,
            default_root_dir=str(folder),
            logger=logger,
            callbacks=callbacks,
            plugins=[WholeFiles(), environment()],
            enable_checkpointing=False,  # `fit.Keeper` does, between steps
            log_every_n_steps=1,
            enable_model_summary=False,
            enable_progress_bar=False,
            use_distributed_sampler=False,
            reload_dataloaders_every_n_epochs=0,
            num_sanity_val_steps=0,
            check_val_every_n_epoch=None,  # validation counts steps, over epochs
            val_check_interval=min(training.validate_every, steps)
            * training.accumulate_grad_batches,
        )
