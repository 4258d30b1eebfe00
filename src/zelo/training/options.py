"""Options of optimisation (`training`, `distil.training`)."""

from __future__ import annotations

from zelo.config import Component, option
from zelo.training.optimization import AdamW, LinearSchedule, Optimizer, Schedule


class TrainingOptions(Component):
    """How long and how fast a model learns."""

    max_epochs: int | None = option(
        None, "passes over the training queries or pairs; null: by their number, of pairs 1", ge=1
    )
    max_steps: int | None = option(None, "stop after so many; the schedule ends there", ge=1)
    optimizer: Optimizer = option(AdamW(), "what takes the steps")
    schedule: Schedule = option(LinearSchedule(), "how the learning rate goes over the steps")
    gradient_clip_val: float = option(1.0, "largest norm of the gradient", gt=0)
    batch_size: int = option(4, "queries (train) or pairs (distil) per step, of all devices", ge=1)
    docs_per_query: int | None = option(
        16, "rated documents per query, drawn anew each epoch; null for all", ge=2
    )
    frozen_layers: int | None = option(
        None,
        "lowest layers that stay as they are, and the embeddings with them; 0 for none; null: half "
        "of them in the stage train where there is little to learn from",
        ge=0,
    )
    stderr_weights: bool = option(
        False, "weigh each document by the standard error of its Elo (objectives on targets)"
    )
    max_tokens_per_forward: int | None = option(
        None,
        "tokens per forward pass, of scoring too, padding included; null: 2,048 on a CPU, 16,384 "
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
    packed: bool | None = option(
        None,
        "read texts one after another without padding; null: on a GPU in half precision",
        exclude=True,
    )
    compile: bool | None = option(
        None,
        "compile the transformer's layers by torch.compile; null: on a GPU, where the training is "
        "long enough",
        exclude=True,
    )
    validation_fraction: float | None = option(
        None,
        "share of the rated queries, by a hash of their text, that validate and do not train; "
        "null: a tenth in the stage train, of few queries more or none",
        ge=0,
        lt=1,
    )
    never_worse: bool = option(
        True,
        "ship the starting model where training is not surely better on the queries that validate",
    )
    validate_every: int = option(50, "steps between validations", ge=1, exclude=True)
    checkpoint_minutes: float = option(1.0, "minutes between checkpoints", gt=0, exclude=True)

    @property
    def epochs(self) -> int:
        """Passes, 1 where that is left open."""
        return self.max_epochs or 1

    def steps(self, batches: int) -> int:
        """Steps of the whole training, with so many batches per epoch."""
        every = self.epochs * batches
        return min(every, self.max_steps or every)

    def reads(self, items: float) -> float:
        """Queries or pairs read in the whole training, of so many per epoch."""
        every = self.epochs * items
        return every if self.max_steps is None else min(every, self.max_steps * self.batch_size)
