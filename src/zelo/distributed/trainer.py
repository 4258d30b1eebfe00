"""Devices and precision (`conf/trainer/`)."""

from __future__ import annotations

import os
import shutil
from typing import Any

from zelo.config import Component, option
from zelo.errors import UserError


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

    def max_tokens_per_forward(self, asked: int | None = None) -> int:
        """Tokens per forward pass: as asked, or what suits a CPU's caches or a GPU."""
        return asked or suitable_tokens(self.accelerator)

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


def suitable_tokens(device: str) -> int:
    """Tokens that a forward pass may read on a device of this kind (cpu, cuda, ...)."""
    return 2048 if device == "cpu" else 32768
