"""A cross-encoder head that starts as the bi-encoder its backbone came from.

Query and document are read in one pass, so their tokens see one another; each segment is then
mean-pooled, and the score is `scale · cos(q, d) + w · [q, d, q∘d] + b` of the two pools, with `w`
small at first. An untrained one therefore ranks about as an embedding model does, where an
untrained [CLS] head ranks at random.

This file depends on torch and sentence-transformers alone: it is copied beside the weights of a
model with this head, which loads with `CrossEncoder(path, trust_remote_code=True)`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from sentence_transformers.base.modules.module import Module
from torch import Tensor, nn


class SegmentHead(Module):  # type: ignore[misc]
    """Scores (pairs, 1) from token embeddings of pairs, told apart by token type ids."""

    config_keys = ["dimension", "scale"]  # noqa: RUF012 (the name and form are the library's)

    def __init__(self, dimension: int, scale: float = 6.0) -> None:
        super().__init__()
        self.dimension = dimension
        self.scale = scale
        self.linear = nn.Linear(3 * dimension, 1)
        nn.init.normal_(self.linear.weight, std=1e-3)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Read `token_embeddings`, `attention_mask`, `token_type_ids`; write `scores`."""
        tokens: Tensor = features["token_embeddings"].float()
        first = features["token_type_ids"] == 0
        real = features["attention_mask"].bool()
        q = mean_pool(tokens, real & first)
        d = mean_pool(tokens, real & ~first)
        linear = self.linear(torch.cat([q, d, q * d], dim=1))
        features["scores"] = self.scale * F.cosine_similarity(q, d).unsqueeze(1) + linear
        return features

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **_: Any) -> None:
        """Write configuration and weights into the module's folder."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, **kwargs: Any) -> SegmentHead:
        """Read what `save` wrote."""
        source = {
            key: kwargs[key]
            for key in ("subfolder", "token", "cache_folder", "revision", "local_files_only")
            if key in kwargs
        }
        head = cls(**cls.load_config(model_name_or_path, **source))
        cls.load_torch_weights(model_name_or_path, model=head, **source)
        return head


def mean_pool(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean of `tokens` (texts, length, dimension) where `mask` (texts, length) holds, or 0."""
    weight = mask.unsqueeze(2).to(tokens.dtype)
    return (tokens * weight).sum(1) / weight.sum(1).clamp_min(1.0)
