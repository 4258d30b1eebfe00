"""A transformer's layers, and how they are compiled: one by one, since they are alike."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn

from zelo.errors import UserError, in_words
from zelo.progress import tell

# Operations from which on compiling pays on a GPU: it takes about half a minute, and saves about as
# much of what a pass over six million tokens takes a model of 0.6 billion parameters.
WORTH_COMPILING = 2e16
VARIANTS = 64  # of a layer: with and without gradients, of each length of a sequence


def layers(backbone: nn.Module) -> nn.ModuleList:
    """The transformer's layers, lowest first; `UserError` where there is no such list."""
    depth = getattr(backbone.config, "num_hidden_layers", None)
    for module in backbone.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise UserError(f"{type(backbone).__name__}: its layers were not found")


def compile_layers(backbone: nn.Module, fixed: bool) -> None:
    """Compile each layer; `fixed`: for a few lengths of its input, else for any."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    for layer in layers(backbone):
        layer.compile(dynamic=not fixed)


def worth_compiling(backbone: nn.Module, tokens: float, each: int, device: torch.device) -> bool:
    """Whether compiling pays where `tokens` take `each` operations per parameter."""
    parameters = sum(p.numel() for layer in layers(backbone) for p in layer.parameters())
    return tokens * each * parameters > WORTH_COMPILING and compiles(device)


@cache
def compiles(device: torch.device) -> bool:
    """Whether this machine compiles for a device, which asks for tools; said where it does not."""
    try:
        torch.compile(double)(torch.ones(2, device=device))
    except Exception as error:
        tell(f"layers are not compiled, which would be faster ({in_words(error)})")
        return False
    return True


def double(x: Any) -> Any:
    """Something to compile."""
    return 2 * x
