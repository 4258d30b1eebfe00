"""One training by Lightning: checkpoints, resume, loss curve, progress, the best weights."""

from __future__ import annotations

import logging
import shutil
import signal
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer

from zelo.artifacts import read_json, table, write_json, write_table, writing_below
from zelo.distributed.ranks import end_when_told, environment, this_process
from zelo.distributed.trainer import LightningTrainer
from zelo.errors import UserError
from zelo.progress import Progress, say
from zelo.training.base_module import READ_AT_ONCE, ZeloModule
from zelo.training.checkpoints import (
    CHECKPOINTS,
    TOKENS,
    WATCHED,
    AtomicCheckpointIO,
    ResumableCheckpoint,
)
from zelo.training.never_worse import best_step, read_values
from zelo.training.options import TrainingOptions
from zelo.training.trainable import MODEL

FITTED = "fitted.json"
BEGUN, EXPLODED = 10, 100.0  # a loss so many times the largest of the first steps has exploded


def fit(
    module: ZeloModule,
    data: LightningDataModule,
    out: Path,
    training: TrainingOptions,
    trainer: LightningTrainer,
    logger: Any,
    what: str,
    validate_start: bool = False,
) -> None:
    """Train `module` on the batches of `data`, from the last checkpoint in `out` if there is one.

    With `validate_start` what is held out validates before the first step too. Writes the `losses`
    of every step, `fitted.json` (what was learned from, steps, mean loss of the last tenth of them,
    what was validated, which weights are the best, and of which step) and those weights, for
    `load_fitted`. Runs on every rank; the first one writes. Raises `UserError` where the loss is no
    finite number or explodes, and where memory does not suffice.
    """
    quiet_lightning()
    folder = out / CHECKPOINTS
    counts = data.counts()
    watched = "validation_queries" in counts
    steps = training.steps(data.steps_per_epoch)
    curve = LossCurve(steps, what)
    keeper = ResumableCheckpoint(folder, training.checkpoint_minutes)
    last = folder / "last.ckpt"
    same_division(folder, training, trainer)
    torch.use_deterministic_algorithms(True, warn_only=True)
    lightning = build_trainer(
        trainer, out, steps, training, logger, [curve, keeper], validate_start=validate_start
    )
    try:
        lightning.fit(
            module,
            data,
            ckpt_path=str(last) if last.exists() else None,
            weights_only=True,
        )
        if "profiler" in trainer.others and lightning.is_global_zero:
            say(lightning.profiler.summary())
        final = folder / "final.ckpt"
        lightning.save_checkpoint(final, weights_only=True)
        found: dict[str, float] = {}
        if watched and keeper.validated == steps:  # the last step has validated
            metrics = lightning.callback_metrics.items()
            found = {name: float(value) for name, value in metrics if name.startswith("val/")}
        elif watched:
            found = lightning.validate(module, datamodule=data, verbose=False)[0]
    except SystemExit:  # what Lightning makes of an interrupt, with further ones ignored
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from None
    except RuntimeError as error:
        if "memory" in str(error) and "alloc" in str(error):  # of CUDA, and of the CPU's allocator
            raise UserError(out_of_memory(error, training, trainer)) from None
        raise
    if not lightning.is_global_zero:
        return
    write_table(
        out,
        "losses",
        table("losses", step=list(range(1, len(curve.losses) + 1)), loss=curve.losses),
    )
    tail = curve.losses[-max(len(curve.losses) // 10, 1) :]
    best = best_step(read_values(folder), module.hparams["seed"]) if watched else steps
    better = best < steps
    write_json(
        out / FITTED,
        {
            "counts": counts,
            "steps": steps,
            "final_loss": round(sum(tail) / len(tail), 6),
            "weights": "best.ckpt" if better else final.name,
            "best_step": best,
            "validated": {
                **{name: round(value, 4) for name, value in found.items()},
                **(
                    {WATCHED: round(keeper.best or 0, 4), "best_step": keeper.step}
                    if better
                    else {}
                ),
            },
        },
    )


def build_trainer(
    trainer: LightningTrainer,
    folder: Path,
    steps: int,
    training: TrainingOptions,
    logger: Any,
    callbacks: list[Any],
    validate_start: bool = False,
) -> Trainer:
    """A `lightning.Trainer` that works in `folder` for `steps` steps; with `validate_start` all of
    what is held out validates before the first."""
    return Trainer(
        accelerator=trainer.accelerator,
        devices=trainer.devices,
        num_nodes=trainer.num_nodes,
        strategy=trainer.share_model(),
        precision=trainer.precision,
        accumulate_grad_batches=training.accumulate_grad_batches,
        max_steps=steps,
        max_epochs=-1,
        gradient_clip_val=training.gradient_clip_val,
        default_root_dir=str(folder),
        logger=logger,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(), environment()],
        enable_checkpointing=False,  # `ResumableCheckpoint` does, between steps
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        reload_dataloaders_every_n_epochs=0,
        num_sanity_val_steps=-1 if validate_start else 0,  # not again where training goes on
        check_val_every_n_epoch=None,  # validation counts steps, over epochs
        val_check_interval=min(training.validate_every, steps) * training.accumulate_grad_batches,
        **{"log_every_n_steps": 1, **trainer.others},
    )


def same_division(folder: Path, training: TrainingOptions, trainer: LightningTrainer) -> None:
    """Refuse to go on from a checkpoint whose counts and states are of another division of work."""
    sharded = trainer.processes > 1 and trainer.strategy == "fsdp"
    now = {"accumulate_grad_batches": training.accumulate_grad_batches, "fsdp": sharded}
    about = folder / "begun.json"
    if (folder / "last.ckpt").exists() and about.is_file():
        begun = read_json(about, "accumulate_grad_batches", "fsdp")
        if begun != now:
            raise UserError(
                f"training: it was begun with training.accumulate_grad_batches="
                f"{begun['accumulate_grad_batches']} and "
                f"{'with' if begun['fsdp'] else 'without'} trainer.strategy=fsdp; go on so, or "
                f"remove {folder} to begin anew"
            )
    elif this_process().rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(about, now)


def load_fitted(module: LightningModule, out: Path) -> dict[str, Any]:
    """Give `module` the weights that `fit` found best; what it wrote of them."""
    fitted: dict[str, Any] = read_json(out / FITTED)
    weights = out / CHECKPOINTS / str(fitted["weights"])
    checkpoint = torch.load(weights, map_location="cpu", weights_only=True)
    unknown = module.load_state_dict(checkpoint["state_dict"], strict=False).unexpected_keys
    assert not unknown, unknown
    module.on_load_checkpoint(checkpoint)
    return fitted


def export(module: Any, out: Path) -> dict[str, Any]:
    """Write `out/model` by the best weights that `fit` left in `out`; what is told of them."""
    fitted = load_fitted(module, out)
    save(module, out / MODEL)
    clear_up(out)
    return told(fitted)


def save(module: Any, folder: Path) -> None:
    """Write the folder of a model."""
    with writing_below(folder):
        module.save_pretrained(folder)


def clear_up(out: Path) -> None:
    """Remove what a training needed to go on."""
    for folder in (TOKENS, CHECKPOINTS):  # what is dear last
        shutil.rmtree(out / folder)


def told(fitted: Mapping[str, Any]) -> dict[str, Any]:
    """What the stage tells of what `fit` wrote."""
    return {
        **fitted["counts"],
        "steps": fitted["steps"],
        "final_loss": fitted["final_loss"],
        **fitted["validated"],
    }


def out_of_memory(error: Exception, training: TrainingOptions, trainer: LightningTrainer) -> str:
    """What to change."""
    tokens = trainer.max_tokens_per_forward(training.max_tokens_per_forward)
    ways = [f"training.max_tokens_per_forward={tokens // 2}"]
    if not training.gradient_cache:
        ways.append("training.gradient_cache=true")
    ways.append("model.gradient_checkpointing=true")
    if training.batch_size > 1:
        ways.append(f"training.accumulate_grad_batches={2 * training.accumulate_grad_batches}")
    return f"training: out of memory ({str(error).splitlines()[0]}); try {', '.join(ways)}"


class StepLoss(NamedTuple):
    """Loss of a step, on the device."""

    loss: torch.Tensor
    query_ids: list[str]
    epoch: int


class LossCurve(Callback):  # type: ignore[misc]
    """Keeps the loss of every step, over resumes too, logs it and shows progress.

    From a GPU the losses of some steps are read together, as to read one waits for its step.
    """

    def __init__(self, steps: int, what: str) -> None:
        self.losses: list[float] = []
        self.unread: list[StepLoss] = []  # of the steps after those
        self.micro_batches: list[tuple[torch.Tensor, Sequence[str]]] = []  # of the step after them
        self.steps, self.what = steps, what
        self.progress: Progress | None = None

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Draw the bar, on one rank."""
        if this_process().world_size > 1:
            end_when_told()
        self.trainer, self.module = trainer, module
        module.logs_loss = False
        self.progress = Progress(self.steps, self.what) if trainer.is_global_zero else None

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss, the sum of its micro-batches, and show how far training is."""
        self.micro_batches.append((outputs["loss"].detach(), batch.query_ids))
        if trainer.global_step == len(self.losses) + len(self.unread):
            return
        losses, query_ids = zip(*self.micro_batches, strict=True)
        self.micro_batches = []
        # Lightning has divided each loss by the number of micro-batches.
        together = sorted({query_id for part in query_ids for query_id in part})
        self.unread.append(StepLoss(torch.stack(losses).sum(), together, trainer.current_epoch))
        if len(self.unread) >= READ_AT_ONCE[module.device.type]:
            self.read()
        if self.progress is not None:
            last = f"loss {self.losses[-1]:.4f}" if self.losses else ""
            self.progress.show(len(self.losses) + len(self.unread), last)

    def read(self) -> None:
        """Take what is unread from the device, check and log it: the mean over ranks."""
        if not self.unread:
            return
        self.module.check_losses()
        unread, self.unread = self.unread, []
        stacked = torch.stack([step.loss for step in unread])
        losses = self.trainer.strategy.reduce(stacked, reduce_op="mean").tolist()
        for loss, step in zip(losses, unread, strict=True):
            first = self.losses[:BEGUN]
            number = len(self.losses) + 1
            if len(first) == BEGUN and loss > EXPLODED * max(first):
                raise UserError(
                    f"training: the loss exploded to {loss:.3g} at step {number}, from at most "
                    f"{max(first):.3g} in the first {BEGUN}, in a batch of queries "
                    f"{', '.join(step.query_ids)}: lower training.optimizer.lr or "
                    f"training.gradient_clip_val"
                )
            self.losses.append(loss)
            every = self.trainer.log_every_n_steps
            if every and number % every == 0:
                for logger in self.trainer.loggers:
                    logger.log_metrics({"train/loss": loss, "epoch": step.epoch}, number - 1)
        for logger in self.trainer.loggers:
            logger.save()

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Nothing validates, and is kept as the best, of which a loss is not known."""
        self.read()

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Read what is left and clear the bar."""
        self.read()
        if self.progress is not None:
            self.progress.close()

    def on_exception(
        self, trainer: Trainer, module: LightningModule, exception: BaseException
    ) -> None:
        """Clear the bar."""
        if self.progress is not None:
            self.progress.close()

    def state_dict(self) -> dict[str, Any]:
        """Go into the checkpoint, which is of steps that have been looked at."""
        self.read()
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
        ".*Total length of .* across ranks is zero.*",  # no query is held out
        ".*Found keys that are not in the model state dict.*",
        ".*recommended to use `self.log.*sync_dist=True.*",  # metrics have gathered all ranks
    ):
        warnings.filterwarnings("ignore", text)
