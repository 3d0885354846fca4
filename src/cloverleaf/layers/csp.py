"""Cross-stage partial blocks (arXiv 1911.11929): residual bottlenecks on one half of the channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.planned import ConvKind, conv3x3
from cloverleaf.layers.style import Style


class Bottleneck(nn.Module):
    """x + conv3x3(conv1x1(x)).

    Args:
        channels: width of input and output.
        expansion: width between the two convolutions over ``channels``.
        residual: add the input.
        conv: kind of the 3x3 convolution; a residual connection follows it.
        style: normalisation constants and activation.
    """

    def __init__(
        self, channels: int, *, style: Style, expansion: float = 0.5, residual: bool = True, conv: ConvKind = "conv"
    ) -> None:
        super().__init__()
        hidden = int(channels * expansion)
        self.residual = residual
        self.reduce = ConvNormAct(channels, hidden, style=style)
        self.expand = conv3x3(conv, hidden, channels, place="residual" if residual else "plain", style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        y = self.expand(self.reduce(x))
        return x + y if self.residual else y


class CspBlock(nn.Module):
    """Two 1x1 paths of half the output's width, one through residual bottlenecks; concatenated and mixed.

    Args:
        in_channels: width of the input.
        out_channels: width of the output, even.
        depth: number of bottlenecks.
        conv: kind of their 3x3 convolutions.
        style: normalisation constants and activation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, depth: int, *, style: Style, conv: ConvKind = "conv"
    ) -> None:
        super().__init__()
        half = out_channels // 2
        self.main = ConvNormAct(in_channels, half, style=style)
        self.bypass = ConvNormAct(in_channels, half, style=style)
        self.blocks = nn.Sequential(*(Bottleneck(half, expansion=1.0, conv=conv, style=style) for _ in range(depth)))
        self.merge = ConvNormAct(2 * half, out_channels, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        return self.merge(torch.cat((self.blocks(self.main(x)), self.bypass(x)), 1))
