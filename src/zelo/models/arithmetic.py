"""Products of matrices of 32 bits on a CPU, by whichever of torch's two libraries is the faster.

Torch asks MKL, whose fast code is for Intel's processors. Others with AVX-512 multiply two to three
times as fast by oneDNN, which torch asks where factors may be rounded to 16 bits. It does not round
them where a processor has no tiles for that (AMX); that is tried, and not taken on trust.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch

EXACT = 1e-3  # of sums of 512 products of normal numbers: 32 bits are 1e-4 off, 16 bits 0.1
SHORT = 128  # tokens of a text, from which on attention in blocks is faster


@cache
def multiplies_by_onednn() -> bool:
    """Have torch ask oneDNN for all of this process, where that is as exact; whether it does."""
    about = Path("/proc/cpuinfo")
    amd = about.is_file() and "AuthenticAMD" in about.read_text(encoding="utf-8")
    if not amd or torch.cuda.is_available():  # a GPU would round as it is allowed to
        return False
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(*shape, generator=generator) for shape in ((64, 512), (512, 64)))
    exact = bool((a.double() @ b.double() - a @ b).abs().max() < EXACT)
    if not exact:
        torch.set_float32_matmul_precision(before)
    return exact


def attention_of(features: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Context in which short texts attend by whole matrices: blocks of one are too small for
    oneDNN."""
    if not multiplies_by_onednn() or features["input_ids"].shape[1] > SHORT:
        return nullcontext()
    from torch.nn.attention import SDPBackend, sdpa_kernel

    context: AbstractContextManager[Any] = sdpa_kernel(SDPBackend.MATH)
    return context
