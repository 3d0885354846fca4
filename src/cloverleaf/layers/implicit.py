"""Implicit knowledge (arXiv 2105.04206): learned vectors that do not depend on the input."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImplicitAdd(nn.Module):
    """Adds a learned value per channel, drawn from N(0, 0.02^2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.empty(1, channels, 1, 1))
        nn.init.normal_(self.value, mean=0.0, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        return x + self.value


class ImplicitMultiply(nn.Module):
    """Multiplies by a learned value per channel, drawn from N(1, 0.02^2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.empty(1, channels, 1, 1))
        nn.init.normal_(self.value, mean=1.0, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        return x * self.value
