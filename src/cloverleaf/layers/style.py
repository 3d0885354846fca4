"""What a family of layers has in common: normalisation constants, activation, rounding of widths."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

Activation = Literal["silu", "leaky_relu", "relu", "mish", "identity"]
NormEps = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Numbers that every layer of a network shares.

    Attributes:
        activation: `leaky_relu` has slope 0.1, as in YOLOv7-tiny; `mish` is x tanh(softplus(x)) (arXiv 1908.08681).
        norm_eps: epsilon of every BatchNorm; most YOLO families use 1e-3 and darknet's forms 1e-4, not PyTorch's 1e-5.
        norm_momentum: share of the new batch in the running statistics.
    """

    activation: Activation = "silu"
    norm_eps: float = 1e-3
    norm_momentum: float = 0.03

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """A fresh BatchNorm over ``channels``."""
        return nn.BatchNorm2d(channels, eps=self.norm_eps, momentum=self.norm_momentum)

    def act(self) -> nn.Module:
        """A fresh activation module."""
        if self.activation == "silu":
            return nn.SiLU(inplace=True)
        if self.activation == "leaky_relu":
            return nn.LeakyReLU(0.1, inplace=True)
        if self.activation == "relu":
            return nn.ReLU(inplace=True)
        if self.activation == "mish":
            return nn.Mish(inplace=True)
        return nn.Identity()


def scale_width(channels: float, width: float = 1.0, multiple: int = 8) -> int:
    """``channels * width`` rounded up to ``multiple``; the published rule for width multipliers."""
    return max(multiple, math.ceil(round(channels * width / multiple, 6)) * multiple)
