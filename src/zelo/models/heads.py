"""What turns tokens into scores and embeddings computes in 32 bits, whatever the transformer does.

Scores of candidates lie close together: in bfloat16 many of them would be the same number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def heads_in_32_bits(model: Any) -> None:
    """Have a sentence-transformers `model` compute in 32 bits what follows its transformer.

    Of an answer that is the logits of its tokens, and no others are computed.
    """
    from sentence_transformers.cross_encoder.modules import LogitScore

    transformer = model[0].model
    base = transformer.base_model
    for head in [*list(model)[1:], getattr(base, "pooler", None), *heads_of(transformer)]:
        if head is None or getattr(head, "of_32_bits", False):
            continue
        head.of_32_bits = True
        if isinstance(head, LogitScore):
            answers_alone(transformer, head)
        else:
            head.forward = in_32_bits(head.forward)


def heads_of(transformer: nn.Module) -> list[nn.Module]:
    """What a classifier has beside its transformer."""
    if transformer.base_model is transformer or hasattr(transformer, "lm_head"):
        return []
    return [part for part in transformer.children() if part is not transformer.base_model]


def in_32_bits(compute: Callable[..., Any]) -> Callable[..., Any]:
    """`compute`, of a tensor or of features with tensors, in 32 bits though others are not."""

    def exactly(given: Any, *args: Any, **options: Any) -> Any:
        tensors = list(given.values()) if isinstance(given, Mapping) else [given]
        device = next(each.device for each in tensors if isinstance(each, Tensor))
        with torch.autocast(device.type, enabled=False):
            return compute(widened(given), *args, **options)

    return exactly


def widened(given: Any) -> Any:
    """A tensor, or those of features, in 32 bits if it is of 16."""
    if isinstance(given, Mapping):
        return {name: widened(value) for name, value in given.items()}
    half = isinstance(given, Tensor) and given.dtype in (torch.bfloat16, torch.float16)
    return given.float() if half else given


def answers_alone(decoder: Any, score: Any) -> None:
    """Have a decoder give the logits of the answers that `score` compares, in 32 bits."""
    output = decoder.get_output_embeddings()
    ids = [score.true_token_id]
    if score.false_token_id is not None:
        ids.append(score.false_token_id)

    def logits(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if output.bias is None else output.bias[ids].float()
            return nn.functional.linear(hidden.float(), output.weight[ids].float(), bias)

    def compare(features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        last = features[score.module_input_name][:, -1]
        features["scores"] = last[:, :1] - last[:, 1:].sum(1, keepdim=True)
        return features

    output.forward, score.forward = logits, compare


def narrow(transformer: Any, frozen_alone: bool = False) -> None:
    """Hold the weights of a transformer in bfloat16, but for its heads; with `frozen_alone` those
    that do not learn. Buffers stay: positions are computed of them."""
    for name, parameter in transformer.base_model.named_parameters():
        if "pooler" not in name and not (frozen_alone and parameter.requires_grad):
            parameter.data = parameter.data.to(torch.bfloat16)
