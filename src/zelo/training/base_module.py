"""What the LightningModules have in common: optimizer, schedule, chunks, layers that stay fixed."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zelo.config import build, dump
from zelo.errors import UserError
from zelo.models.arithmetic import attention_of
from zelo.models.heads import narrow
from zelo.models.layers import compile_layers, layers, worth_compiling
from zelo.models.packing import PRECISIONS, can_pack, fast_on, read_packed
from zelo.models.tokens import Chunks, Features
from zelo.training.frozen_layers import FrozenLayers
from zelo.training.options import TrainingOptions

TRAINING = 6  # operations per parameter and token: 2 forward, 4 backward
SHOWN = 20  # ids of a batch that an error names
# Losses of a device that are read together; to read those of a GPU is to wait for its last step.
READ_AT_ONCE = defaultdict(lambda: 16, cpu=1)


class UnreadLoss(NamedTuple):
    """Loss of a micro-batch that the host has not seen."""

    step: int  # counted from 1
    loss: Tensor
    query_ids: Sequence[str]


class ZeloModule(LightningModule):  # type: ignore[misc]
    """What the three have in common: optimizer, schedule, layers that stay as they are.

    Dropout is off: with targets that are averages of many comparisons and a single epoch it only
    adds noise, and a resumed run draws nothing that an undisturbed one does not.
    """

    model: Any
    peft_model: Any  # that wraps the backbone where it has adapters
    logit_scale: float | None = None  # factor of the cosine that is the score; None: no cosine
    strict_loading = False  # a checkpoint holds what learns; the rest comes from where it came from
    logs_loss = True  # False where a callback logs those of whole steps

    def __init__(self, model: nn.Module, peft_model: Any, training: TrainingOptions) -> None:
        super().__init__()
        self.model, self.training_options = model, training
        self.configured = False
        self.unread: list[UnreadLoss] = []
        # What is compiled or computed again knows nothing of a context that it was called in.
        self.short_attention = not training.compile and not self.checkpointing()
        self.frozen: FrozenLayers | None = None  # where what they give can be kept
        # Not a submodule: its parameters are the backbone's.
        object.__setattr__(self, "peft_model", peft_model)
        freeze(self.backbone, training.frozen_layers or 0)
        self.packed = False  # whether texts are read without padding
        self.fixed_lengths = False  # whether sequences of them are of a few lengths

    @property
    def backbone(self) -> nn.Module:
        """The transformer."""
        raise NotImplementedError

    def fresh_backbone(self) -> nn.Module:
        """The transformer as training began."""
        raise NotImplementedError

    def widen(self) -> None:
        """Give frozen weights that were held in 16 bits their 32 back: what ships has lost none."""
        held = {n: p for n, p in self.backbone.named_parameters() if p.dtype == torch.bfloat16}
        if not held:
            return
        with torch.random.fork_rng([]):
            fresh = dict(self.fresh_backbone().named_parameters())
        for name, parameter in held.items():
            whole = fresh[name.replace(".base_layer", "")]  # as peft calls what it wraps
            parameter.data = whole.data.to(parameter.device)

    def save_pretrained(self, folder: Any) -> None:
        """Write the folder that ships."""
        raise NotImplementedError

    def configure_model(self) -> None:
        """Make the model ready for the trainer's device and precision, once."""
        if self.configured or self._trainer is None:
            return  # after training, or without any
        self.configured = True
        options, device = self.training_options, self.trainer.strategy.root_device
        precision = PRECISIONS.get(self.trainer.precision, torch.float32)
        wanted = fast_on(device, precision) if options.packed is None else options.packed
        if wanted and can_pack(self.backbone):
            self.packed = True
            read_packed(self.backbone)
        if self.peft_model is not None and precision == torch.bfloat16 and self.device_mesh is None:
            narrow(self.backbone, frozen_alone=True)
        self.shard()
        compiled = options.compile
        if compiled is None:
            compiled = device.type == "cuda" and worth_compiling(
                self.backbone, self.tokens_to_read(), TRAINING, device
            )
        if compiled:
            self.fixed_lengths = self.packed
            compile_layers(self.backbone, self.packed)

    def tokens_to_read(self) -> float:
        """About how many tokens the training reads; 0 where the data do not say."""
        per_step = getattr(self.trainer.datamodule, "tokens_per_step", lambda: 0)()
        return float(per_step * self.total_steps())

    def shard(self) -> None:
        """Shard parameters where the strategy says so (FSDP 2): layer by layer, then the rest."""
        if self.device_mesh is None:
            return
        from torch.distributed.fsdp import fully_shard

        mesh = self.device_mesh["data_parallel"]
        for layer in layers(self.backbone):
            fully_shard(layer, mesh=mesh)
        for part in self.children():  # the model, and what is trained beside it
            if any(True for _ in part.parameters()):
                fully_shard(part, mesh=mesh)

    def configure_optimizers(self) -> Any:
        """The optimizer of what learns, and the schedule of its learning rate."""
        options = self.training_options
        optimizer = options.optimizer.create(
            [parameter for parameter in self.parameters() if parameter.requires_grad],
            scaled=self.trainer.precision == "16-mixed",
        )

        steps = self.total_steps()

        def factor(step: int) -> float:
            return options.schedule.factor(step, steps)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def total_steps(self) -> int:
        """Steps of the whole training, as the trainer knows; `UserError` where it has no end."""
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise UserError("Trainer: the learning rate needs an end; give max_epochs or max_steps")
        return int(steps)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Scale the gradient to a norm of at most `gradient_clip_val`; with the algorithm `value`
        cut each of its numbers there.

        Lightning's own refuses this to a fused optimizer in every mixed precision, as one that
        works with a scaler divides gradients by the scale only in its step. Here what has a scaler
        is not fused.
        """
        if gradient_clip_val:
            learned = [p for group in optimizer.param_groups for p in group["params"]]
            by_value = gradient_clip_algorithm == "value"
            clip = nn.utils.clip_grad_value_ if by_value else nn.utils.clip_grad_norm_
            clip(learned, gradient_clip_val)

    def on_train_start(self) -> None:
        """Switch dropout off; layers that recompute activations do so in training mode alone."""
        self.eval()
        for module in self.checkpointing():
            module.training = True  # of this module alone: what is in it stays as it is
        count, compiled = self.training_options.frozen_layers or 0, self.training_options.compile
        plain = self.device_mesh is None and not compiled and not self.packed
        if count and plain and self.device.type == "cpu":
            batches = self.total_steps() * self.trainer.accumulate_grad_batches
            self.frozen = FrozenLayers(list(layers(self.backbone)[:count]), batches)

    def checkpointing(self) -> list[nn.Module]:
        """Modules whose activations are computed again for the gradient."""
        return [m for m in self.modules() if getattr(m, "gradient_checkpointing", False) is True]

    def on_train_end(self) -> None:
        """Look at the last losses."""
        self.check_losses()
        self.frozen = None

    def on_validation_start(self) -> None:
        """Look at the losses of the steps before it."""
        self.check_losses()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what learns: of a model with LoRA a hundredth.

        It is written once all ranks have found their losses finite.
        """
        self.check_losses()
        if torch.distributed.is_initialized():
            self.trainer.strategy.barrier()
        learns = {name for name, p in self.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if name in learns
        }

    def apply_to(self, inputs: Chunks, model: Callable[[Features], Tensor]) -> Tensor:
        """Rows (inputs, ...) of `model` for `inputs`.

        With `gradient_cache` the activations of a chunk are made anew when its gradient is due, so
        that memory holds one chunk's at a time, however large the batch (GradCache, arXiv
        2101.06983, by recomputation).
        """
        exact = not torch.is_autocast_enabled("cpu")
        if self.short_attention and self.device.type == "cpu" and exact and not self.packed:
            model = partial(attending, model)
        if self.frozen is not None:
            inputs, model = self.frozen.skipped(inputs, model)
        read = model
        if self.training_options.gradient_cache and torch.is_grad_enabled():

            def read(chunk: Features) -> Tensor:
                rows: Tensor = checkpoint(model, chunk, use_reentrant=False)
                return rows

        # Asked first: then all ranks are at the same point.
        more = self.others_have_more(len(inputs.features))
        rows = inputs.apply(read)
        for _ in range(more):
            rows = rows + 0 * read(dict(inputs.features[-1])).sum()
        return rows

    def others_have_more(self, chunks: int) -> int:
        """How many chunks more the rank with the most has, where ranks read in step (FSDP)."""
        if self.device_mesh is None:
            return 0
        most = torch.tensor(chunks, device=self.device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        return int(most) - chunks

    def logged(self, loss: Tensor, query_ids: Sequence[str]) -> Tensor:
        """Log the loss of a step and pass it on; `UserError` where it is no finite number, on a GPU
        some steps later."""
        step = self.trainer.global_step + 1
        self.unread.append(UnreadLoss(step, loss.detach(), query_ids))
        if len(self.unread) >= READ_AT_ONCE[loss.device.type]:
            self.check_losses()
        if self.logs_loss:
            self.log("train/loss", loss, batch_size=1, sync_dist=self.trainer.world_size > 1)
        return loss

    def check_losses(self) -> None:
        """Read the losses that are still on the device; `UserError` where one is no finite
        number."""
        unread, self.unread = self.unread, []
        values = torch.stack([one.loss for one in unread]).tolist() if unread else []
        for one, value in zip(unread, values, strict=True):
            if not math.isfinite(value):
                named = ", ".join(sorted(set(one.query_ids))[:SHOWN])
                raise UserError(
                    f"training: the loss became {value} at step {one.step}, in a batch of queries "
                    f"{named}: lower training.optimizer.lr or training.gradient_clip_val, or look "
                    f"at their ratings"
                )


def attending(model: Callable[[Features], Tensor], features: Features) -> Tensor:
    """What `model` gives for a chunk, with the attention that suits its length."""
    with attention_of(features):
        return model(features)


@contextmanager
def new_parameters(seed: int) -> Iterator[None]:
    """Have new parameters drawn by `seed` alone, wherever and whenever a model is made."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        yield


def training_of(
    training: TrainingOptions | dict[str, Any] | None, learning_rate: float | None
) -> TrainingOptions:
    """Options of training, as they were dumped or as they are, with this rate where it is given."""
    options: TrainingOptions = (
        build(training, "training") if isinstance(training, dict) else training or TrainingOptions()
    )
    if learning_rate is None:
        return options
    optimizer = {**dump(options.optimizer), "lr": learning_rate}
    changed: TrainingOptions = build({**dump(options), "optimizer": optimizer}, "training")
    return changed


def freeze_pooler(backbone: nn.Module) -> None:
    """Take BERT's pooler, which only a sequence classifier reads, out of what learns: ranks would
    wait for its gradient."""
    for name, parameter in backbone.named_parameters():
        if "pooler" in name:
            parameter.requires_grad_(False)


def freeze(backbone: nn.Module, count: int) -> None:
    """Keep the embeddings and the lowest `count` layers of a transformer as they are; 0: none.

    No gradient passes below them, which saves much of the work. Raises `UserError` where the
    encoder has no more layers than that.
    """
    if count == 0:
        return
    stack = layers(backbone)
    if count >= len(stack):
        raise UserError(
            f"training.frozen_layers={count}: the encoder has {len(stack)} layers, one must learn"
        )
    for module in stack[:count]:
        module.requires_grad_(False)
    for name, parameter in backbone.named_parameters():
        if "embed" in name:
            parameter.requires_grad_(False)
