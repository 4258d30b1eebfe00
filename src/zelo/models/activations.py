"""What stands after a model's last layer and is no layer of torch's."""

from __future__ import annotations

import torch
from torch import Tensor


class TemperedSigmoid(torch.nn.Module):
    """sigmoid(x / temperature)."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, scores: Tensor) -> Tensor:
        """Scores in [0, 1]."""
        return torch.sigmoid(scores / self.temperature)
