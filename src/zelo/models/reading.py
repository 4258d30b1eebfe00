"""Many texts or pairs read by a model on one device: in the trainer's precision, similar lengths
together, and without padding where that pays. What comes out is of 32 bits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zelo.models.batching import by_own_tokens
from zelo.models.heads import heads_in_32_bits, narrow
from zelo.models.layers import compile_layers, worth_compiling
from zelo.models.packing import can_pack, fast_on, lets_packing_through, read_packed
from zelo.models.tokens import Chunking, Features, TokenFile, on_device

if TYPE_CHECKING:
    from zelo.distributed.trainer import LightningTrainer

READING = 2  # operations per parameter and token
PART = 16  # chunks between two looks at the clock


class Reader:
    """A sentence-transformers model that is ready to read: on its device, and as suits it.

    In `bf16-mixed` the transformer's weights are held in bfloat16, and the heads stay as they are;
    in `16-mixed` it computes in float16. `output` is the feature that is wanted.
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
        transformer = model[0].model
        self.precision: Callable[[], Any] = nullcontext
        precision = torch.float32
        heads_in_32_bits(model)
        if trainer.precision == "bf16-mixed":
            narrow(transformer)
            precision = torch.bfloat16
        elif trainer.precision == "16-mixed":
            precision = torch.float16
            self.precision = lambda: trainer.autocast(self.device)
        packed = can_pack(transformer) and fast_on(self.device, precision)
        if packed:
            read_packed(transformer)
            lets_packing_through(model[0])
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

        with self.precision():
            return tokens.chunks(indices, self.chunking).apply(read).cpu()

    def parts(self, tokens: TokenFile) -> list[list[int]]:
        """All rows, in parts between which progress can be told; the longest first, so that what
        does not fit into memory fails at once."""
        return by_own_tokens(tokens.lengths.tolist(), PART * self.chunking.max_tokens)
