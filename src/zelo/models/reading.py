"""Many texts or pairs read by a model on one device: in the trainer's precision, similar lengths
together, and without padding where that pays. What comes out is of 32 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zelo.models.batching import by_own_tokens
from zelo.models.heads import heads_in_32_bits, narrow
from zelo.models.layers import compile_layers, worth_compiling
from zelo.models.packing import (
    PRECISIONS,
    can_pack,
    fast_on,
    lets_packing_through,
    read_packed,
)
from zelo.models.tokens import Chunking, Features, TokenFile, on_device

if TYPE_CHECKING:
    from zelo.distributed.trainer import LightningTrainer

READING = 2  # operations per parameter and token
PART = 16  # chunks between two looks at the clock


def made_ready(
    transformer: Any, trainer: LightningTrainer, device: torch.device, by_mask: bool = False
) -> bool:
    """Have a transformer read in the trainer's precision; whether it does so without padding.

    In `bf16-mixed` its weights are held in bfloat16, in `16-mixed` it computes in float16 where it
    is called in `trainer.autocast`. It leaves padding out where features say where tokens lie, or,
    `by_mask`, of all features.
    """
    if trainer.precision == "bf16-mixed":
        narrow(transformer)
    precision = PRECISIONS.get(trainer.precision, torch.float32)
    packed = can_pack(transformer) and fast_on(device, precision)
    if packed:
        read_packed(transformer, by_mask)
    return packed


class Reader:
    """A sentence-transformers model that is ready to read: on its device, and as suits it.

    Heads stay in 32 bits. `output` is the feature that is wanted, `tokens` about how many are to be
    read: layers are compiled for many.
    """

    def __init__(
        self,
        model: Any,
        output: str,
        trainer: LightningTrainer,
        max_tokens_per_forward: int | None = None,
        tokens: float = 0,
        local: int = 0,
    ) -> None:
        self.device, self.output = trainer.device(local), output
        self.model = model.to(self.device).eval()
        self.trainer, transformer = trainer, model[0].model
        heads_in_32_bits(model)
        lets_packing_through(model[0])
        packed = made_ready(transformer, trainer, self.device)
        compiled = self.device.type == "cuda" and worth_compiling(
            transformer, tokens, READING, self.device
        )
        if compiled:
            compile_layers(transformer, packed)
        self.chunking = Chunking(
            trainer.max_tokens_per_forward(max_tokens_per_forward), packed, packed and compiled
        )

    @torch.inference_mode()
    def rows(self, tokens: TokenFile, indices: Sequence[int]) -> Tensor:
        """What the model makes of these rows, in their order: float32, on the CPU."""

        def read(chunk: Features) -> Tensor:
            found: Tensor = self.model(on_device(chunk, self.device))[self.output]
            return found.float()

        with self.trainer.autocast(self.device):
            return tokens.chunks(indices, self.chunking).apply(read).cpu()

    def parts(self, tokens: TokenFile) -> list[list[int]]:
        """All rows, in parts between which progress can be told; the longest first, so that what
        does not fit into memory fails at once."""
        return by_own_tokens(tokens.lengths.tolist(), PART * self.chunking.max_tokens)
