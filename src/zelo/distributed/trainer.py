"""Devices and precision (`conf/trainer/`)."""

from __future__ import annotations

import inspect
import os
import shutil
from functools import cache
from typing import Any

from pydantic import ConfigDict, model_validator

from zelo.config import Component, option
from zelo.errors import UserError

OURS = "zelo sets it"
SET_ELSEWHERE = {  # arguments of `lightning.Trainer` that are not given here, and what to do
    "accumulate_grad_batches": "set training.accumulate_grad_batches",
    "barebones": "it would keep no losses; set training.checkpoint_minutes and logger=csv",
    "callbacks": f"{OURS}; write a training of your own to have others",
    "check_val_every_n_epoch": "validation counts steps: set training.validate_every",
    "default_root_dir": "set home, or hydra.run.dir",
    "enable_checkpointing": "a training must be able to go on: set training.checkpoint_minutes",
    "enable_model_summary": "Lightning's own messages are silenced",
    "enable_progress_bar": f"{OURS}: it draws one of its own",
    "fast_dev_run": "choose debug=default",
    "gradient_clip_val": "set training.gradient_clip_val",
    "limit_predict_batches": "nothing is predicted by Lightning; set top_k",
    "limit_train_batches": "set training.max_steps, or data.train_queries",
    "limit_test_batches": "nothing is tested by Lightning; set top_k",
    "logger": "choose logger=csv, tensorboard or wandb",
    "max_epochs": "set training.max_epochs",
    "max_steps": "set training.max_steps",
    "max_time": "the schedule must know the last step: set training.max_steps",
    "min_epochs": "set training.max_epochs",
    "min_steps": "set training.max_steps",
    "model_registry": f"{OURS}; `zelo publish` uploads a model",
    "num_sanity_val_steps": f"{OURS}: it tries trainings in its own way, before judges are paid",
    "overfit_batches": "choose debug=overfit",
    "plugins": f"{OURS}; write a training of your own to have others",
    "reload_dataloaders_every_n_epochs": f"{OURS}: its batches know their epoch",
    "use_distributed_sampler": f"{OURS}: its batches know their rank",
    "val_check_interval": "set training.validate_every",
}
WATCHES = frozenset(  # those that show what happens and change nothing of it
    {
        "detect_anomaly",
        "enable_autolog_hparams",
        "inference_mode",
        "log_every_n_steps",
        "profiler",
    }
)


class LightningTrainer(Component):
    """Devices and precision, by `lightning.Trainer` (`conf/trainer/`).

    Its other arguments are options here too (`trainer.limit_val_batches=2`), but for those that
    zelo sets itself.
    """

    model_config = ConfigDict(extra="allow")

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

    @model_validator(mode="after")
    def _lightning_has_them(self) -> LightningTrainer:
        for name in self.others:
            if name in SET_ELSEWHERE:
                raise UserError(f"trainer.{name}: {SET_ELSEWHERE[name]}")
            if (name, self.others[name]) == ("limit_val_batches", 0):
                raise UserError("trainer.limit_val_batches=0: set training.validation_fraction=0")
            known = arguments()
            if name not in known:
                some = ", ".join(
                    sorted(known - SET_ELSEWHERE.keys() - type(self).model_fields.keys())
                )
                raise UserError(
                    f"trainer.{name}: lightning.Trainer has no such argument; there are "
                    f"{', '.join(type(self).model_fields)}, {some}"
                )
        return self

    @classmethod
    def changes_results(cls, name: str) -> bool:
        """Whether an option is part of the fingerprint: so are Lightning's, but for those that only
        show what happens."""
        return super().changes_results(name) if name in cls.model_fields else name not in WATCHES

    @property
    def others(self) -> dict[str, Any]:
        """What is set of the other arguments of `lightning.Trainer`."""
        return self.model_extra or {}

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
    return 2048 if device == "cpu" else 16384


@cache
def arguments() -> frozenset[str]:
    """The arguments of `lightning.Trainer`."""
    from lightning.pytorch import Trainer

    return frozenset(inspect.signature(Trainer).parameters)
