"""What a transformer computes: operations for a token, by its parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from zelo.models.fine_tuned import FineTuned
    from zelo.models.lora import Lora
    from zelo.models.pretrained import PretrainedModel
    from zelo.training.options import TrainingOptions

LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?)\.(\d+)\.")  # number, in the name of a weight


@dataclass(frozen=True)
class Parameters:
    """How many a transformer has, embeddings apart, as far as it is known without loading it."""

    total: float
    layers: Mapping[int, float] = field(default_factory=dict)  # of each; empty: not known
    sides: Mapping[int, float] = field(default_factory=dict)  # Σ (rows + columns) of its matrices

    @property
    def to_read(self) -> float:
        """Operations that reading a token takes: a product and a sum for each parameter."""
        return 2 * self.total

    def to_learn(
        self, lora: Lora | None, training: TrainingOptions, gradient_checkpointing: bool
    ) -> float:
        """Operations that learning from a token takes.

        Forward 2 for each parameter; back 2 for the gradients of activations and, where it learns
        itself, 2 for its own. Below the lowest layer that learns there is no way back. What is made
        anew on the way back is read twice.
        """
        fixed = {n for n in self.layers if n < (training.frozen_layers or 0)}
        low = sum(self.layers[n] for n in fixed)
        way = self.total - low
        operations = self.to_read + 2 * way
        if training.gradient_cache:
            operations += self.to_read
        elif gradient_checkpointing:
            operations += 2 * way
        if lora is None:
            return operations + 2 * (self.total - low)
        for n, size in self.sides.items():  # adapters of rank r have r (rows + columns)
            operations += (2 if n in fixed else 6) * lora.rank * size
        return operations


@dataclass(frozen=True)
class Work:
    """What one stage computes on this machine."""

    stage: str
    tokens: float
    parameters: float | None  # None: not known without the model
    operations: float | None  # for a token
    training: bool = False

    def hours(self, tera: float) -> float | None:
        """Hours on a device of so many 10¹² operations a second."""
        if self.operations is None:
            return None
        return self.tokens * self.operations / (tera * 1e12) / 3600


@dataclass(frozen=True)
class Device:
    """What one of `conf/throughput.yaml` computes."""

    name: str
    source: str  # how its figures were come by
    models: Sequence[Mapping[str, float]]  # `parameters`, and 10¹² operations a second by kind

    def hours(self, work: Work) -> float | None:
        """Hours of `work` at the throughput of the model that is nearest in size."""
        if work.parameters is None:
            return None
        size = np.log(work.parameters)
        nearest = min(self.models, key=lambda model: abs(np.log(model["parameters"]) - size))
        return work.hours(nearest["training" if work.training else "inference"])


def reading(stage: str, tokens: float, weights: PretrainedModel) -> Work:
    """Work that only reads."""
    p = parameters(weights)
    return Work(stage, tokens, p.total, p.to_read) if p else Work(stage, tokens, None, None)


def learning(stage: str, tokens: float, model: FineTuned, training: TrainingOptions) -> Work:
    """Work that trains `model`."""
    p = parameters(model.pretrained)
    if p is None:
        return Work(stage, tokens, None, None, training=True)
    each = p.to_learn(model.lora, training, model.gradient_checkpointing)
    return Work(stage, tokens, p.total, each, training=True)


def parameters(weights: PretrainedModel) -> Parameters | None:
    """Parameters of a model without its embeddings: by its files, or else by its name (`-4B`)."""
    folder = weights.at_hand()
    if folder is not None:
        from safetensors import safe_open

        count = 0.0
        layers: dict[int, float] = {}
        sides: dict[int, float] = {}
        for path in folder.glob("*.safetensors"):
            with safe_open(path, "np") as file:
                for key in file.keys():  # noqa: SIM118  # it is no dict
                    if "embed" in key:
                        continue
                    shape = file.get_slice(key).get_shape()
                    count += float(np.prod(shape))
                    if found := LAYER.search(key):
                        number = int(found[1])
                        layers[number] = layers.get(number, 0.0) + float(np.prod(shape))
                        if len(shape) == 2:
                            sides[number] = sides.get(number, 0.0) + sum(shape)
        if count:
            return Parameters(count, layers, sides)
    size = re.search(r"[-_](\d+(?:\.\d+)?)([BM])\b", weights.name, re.IGNORECASE)
    if size is None:
        return None
    return Parameters(float(size[1]) * (1e9 if size[2].upper() == "B" else 1e6))
