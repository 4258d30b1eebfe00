"""Texts read without their padding: one after another, as one sequence.

Outside the transformer nothing changes: features are padded rows, and so is what comes out of it.
On its way in the padding is left out, and inside attention keeps texts apart, by torch's
variable-length attention on a GPU and text by text where there is none. Positions begin anew in
each text.

A sequence can be given a fixed length. What fills it up is attended to by nothing else and goes
nowhere; but shapes then never change, and a layer is compiled once.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ATTENTION = "zelo_packed"  # what it is called in transformers
PRECISIONS = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # Lightning's names
HALF = tuple(PRECISIONS.values())
PACKING = "packing"  # feature that says where tokens lie
FAMILIES = frozenset(  # whose attention is as above: tried by tests, one by one
    {
        "bert",
        "camembert",
        "distilbert",
        "electra",
        "llama",
        "mistral",
        "modernbert",
        "qwen2",
        "qwen3",
        "roberta",
        "xlm-roberta",
    }
)


@dataclass(frozen=True)
class Packing:
    """Where the tokens of padded rows (texts, length) lie in one sequence of T places.

    The sequence may be longer than the tokens are many: what fills it up are texts of their own.
    """

    places: Tensor  # (T,) int64: each token's place among the rows' texts × length; 0 of a filler
    positions: Tensor  # (1, T) int64: of each token in its text
    ends: Tensor  # (texts and fillers + 1,) int32: where each begins, and the end of the last
    tokens: int  # how many are no filler
    longest: int  # tokens of the longest text or filler

    def to(self, device: torch.device, non_blocking: bool = False) -> Packing:
        """Tensors on `device`."""
        return self.elsewhere(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Packing:
        """Tensors in pinned memory, from which `to` does not wait for the device."""
        return self.elsewhere(Tensor.pin_memory)

    def elsewhere(self, move: Callable[[Tensor], Tensor]) -> Packing:
        """Its tensors moved."""
        moved: dict[str, Any] = {n: move(getattr(self, n)) for n in ("places", "positions", "ends")}
        return replace(self, **moved)


def pack(
    lengths: Sequence[int], length: int, left: bool = False, size: int = 0, longest: int = 0
) -> Packing:
    """Packing of rows of `length` places that hold texts of these lengths, at their left or, with
    `left` padding, their right ends; the sequence is of at least `size` places, and `longest` the
    least that is told as a text's length."""
    of = torch.tensor(lengths)
    tokens, longest = int(of.sum()), max(longest, *lengths)
    filler = max(size - tokens, 0)
    fillers = [min(longest, filler - start) for start in range(0, filler, longest)]
    every = torch.cat([of, torch.tensor(fillers, dtype=torch.long)])
    ends = F.pad(every.cumsum(0), (1, 0))
    positions = torch.arange(tokens + filler) - torch.repeat_interleave(ends[:-1], every)
    first = torch.arange(len(lengths)) * length + (length - of if left else 0)
    places = torch.repeat_interleave(first, of) + positions[:tokens]
    return Packing(F.pad(places, (0, filler)), positions[None], ends.int(), tokens, longest)


def packing_of(mask: Tensor) -> Packing:
    """Packing of rows by their attention mask (texts, length), on its device."""
    lengths = mask.sum(1).tolist()
    left = any(n < mask.shape[1] for n in lengths) and bool(mask[:, -1].all())
    return pack(lengths, mask.shape[1], left).to(mask.device)


def power_of_2(number: int) -> int:
    """The next one from `number` on, 0 for 0: of few limits a layer is compiled for few."""
    return 1 << (number - 1).bit_length() if number else 0


def can_pack(backbone: Any) -> bool:
    """Whether a transformer is of a kind that is read without padding."""
    config = backbone.config
    return config.model_type in FAMILIES and config._attn_implementation in ("sdpa", ATTENTION)


def fast_on(device: torch.device, precision: torch.dtype) -> bool:
    """Whether torch has variable-length attention for a device and what it computes in."""
    return device.type == "cuda" and precision in HALF and KERNEL is not None


def read_packed(backbone: Any, by_mask: bool = False) -> None:
    """Have a transformer leave the padding of rows out where their features hold a `Packing`.

    Nothing else changes of it, and without one it does what it did; with `by_mask` the packing
    follows from their attention mask, for which the host waits.
    """
    base = backbone.base_model
    if getattr(base, "reads_packed", False):
        return  # it was told before
    base.reads_packed = True
    register()
    offset = first_position(base)
    padded = base.forward

    def forward(*args: Any, packing: Packing | None = None, **features: Any) -> Any:
        if packing is None and by_mask and "attention_mask" in features:
            packing = packing_of(features["attention_mask"])
        if packing is None:
            return padded(*args, **features)
        features |= zip(("input_ids",), args, strict=False)  # classifiers give it by its place
        shape = features.pop("attention_mask").shape
        # Its own length changes, and only matters to attention: no layer is compiled anew for it.
        torch._dynamo.maybe_mark_dynamic(packing.ends, 0)
        flat = {
            name: value.reshape(-1)[packing.places][None]
            if isinstance(value, Tensor) and value.shape == shape
            else value
            for name, value in features.items()
        }
        flat["position_ids"] = packing.positions + offset
        found = padded(
            **flat,
            # Of four dimensions it goes as it is to attention, which looks at the ends instead.
            attention_mask=packing.positions.new_zeros(1, 1, 1, 1),
            cu_seq_lens_q=packing.ends,
            cu_seq_lens_k=packing.ends,
            max_length_q=packing.longest,
            max_length_k=packing.longest,
        )
        hidden = found.last_hidden_state[0, : packing.tokens]
        rows = hidden.new_zeros(shape.numel(), hidden.shape[1])
        rows = rows.index_copy(0, packing.places[: packing.tokens], hidden).unflatten(0, shape)
        found.last_hidden_state = rows
        if found.get("pooler_output") is not None:  # of the first text alone
            found.pooler_output = base.pooler(rows)
        return found

    base.forward = forward
    for module in backbone.modules():
        config: Any = getattr(module, "config", None)
        if hasattr(config, "_attn_implementation"):
            config._attn_implementation = ATTENTION


def lets_packing_through(transformer: Any) -> None:
    """Have the first module of a sentence-transformers model give its transformer the packing."""
    if transformer.model_forward_params is not None:  # None: it gives all features
        transformer.model_forward_params |= {PACKING}


def first_position(base: nn.Module) -> int:
    """Position of a text's first token: RoBERTa's begin behind that of its padding."""
    for name, table in base.named_modules():
        if isinstance(table, nn.Embedding) and name.endswith("position_embeddings"):
            return 0 if table.padding_idx is None else table.padding_idx + 1
    return 0


@cache
def register() -> None:
    """Make the attention known to transformers; of padded rows it is torch's, mask and all."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Attention (batch, length, heads, width) within texts that lie one after another.

    `query` is (1, heads, T, width), `key` and `value` may have fewer heads. Without the texts' ends
    it is transformers' own.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if cu_seq_lens_q is None:
        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling,
            is_causal=is_causal, **rest,
        )  # fmt: skip
        return out
    causal = bool(module.is_causal if is_causal is None else is_causal)
    width = -1 if sliding_window is None else sliding_window - 1  # it counts the token itself
    window = (width, 0 if causal else width)
    q, k, v = (each[0].transpose(0, 1) for each in (query, key, value))
    if torch.is_autocast_enabled(q.device.type):
        half = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(half), k.to(half), v.to(half)
    repeats = q.shape[1] // k.shape[1]
    if repeats > 1:
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    compute = KERNEL if fast_on(q.device, q.dtype) else None
    if compute is None:
        return text_by_text(q, k, v, cu_seq_lens_q, scaling, window)[None], None
    n = max_length_q
    ends = cu_seq_lens_q
    mixed: Tensor = compute(q, k, v, ends, ends, n, n, scale=scaling, window_size=window)
    return mixed[None], None


def variable_length() -> Callable[..., Any] | None:
    """Torch's variable-length attention, if this release has it with windows and scales."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    named = inspect.signature(varlen_attn).parameters
    return varlen_attn if {"scale", "window_size"} <= named.keys() else None


KERNEL = variable_length()  # found here, as what is compiled cannot look for it


def text_by_text(
    q: Tensor, k: Tensor, v: Tensor, ends: Tensor, scale: float | None, window: tuple[int, int]
) -> Tensor:
    """Attention (T, heads, width) of each text by itself."""
    bounds = ends.tolist()
    mixed = []
    for start, end in itertools.pairwise(bounds):
        if start == end:
            continue
        own_q, own_k, own_v = (each[start:end].transpose(0, 1)[None] for each in (q, k, v))
        visible = seen(end - start, window, q.device)
        out = F.scaled_dot_product_attention(own_q, own_k, own_v, attn_mask=visible, scale=scale)
        mixed.append(out[0].transpose(0, 1))
    return torch.cat(mixed)


def seen(length: int, window: tuple[int, int], device: torch.device) -> Tensor | None:
    """Which tokens (length, length) each token of a text sees; None: all."""
    before, after = window
    if before < 0 and after < 0:
        return None
    at = torch.arange(length, device=device)
    distance = at[:, None] - at
    visible = torch.ones(length, length, dtype=torch.bool, device=device)
    if before >= 0:
        visible &= distance <= before
    if after >= 0:
        visible &= -distance <= after
    return visible
