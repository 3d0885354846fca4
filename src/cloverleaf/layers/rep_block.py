"""Blocks of EfficientRep and its CSP form (arXiv 2209.02976; 2301.05586): chains of RepVGG blocks or convolutions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.rep_conv import RepConv
from cloverleaf.layers.style import Style

BlockKind = Literal["rep", "conv"]
Body = Literal["chain", "csp"]
_RELU, _SILU = Style(activation="relu"), Style(activation="silu")


def block(kind: BlockKind, in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """``rep``: a RepVGG block with ReLU; ``conv``: a 3x3 convolution with bias, BatchNorm and SiLU."""
    if kind == "rep":
        return RepConv(in_channels, out_channels, stride, style=_RELU)
    return ConvNormAct(in_channels, out_channels, 3, stride, style=_SILU, bias=True)


def block_style(kind: BlockKind) -> Style:
    """Style of the 1x1 convolutions beside such blocks: ReLU with RepVGG blocks, else SiLU."""
    return _RELU if kind == "rep" else _SILU


class BottleRep(nn.Module):
    """alpha * x + block(block(x)), with a learned scalar alpha (YOLOv6's linear bottleneck)."""

    def __init__(self, channels: int, *, kind: BlockKind) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1))
        self.first = block(kind, channels, channels)
        self.second = block(kind, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        return self.second(self.first(x)) + self.alpha * x


class BepC3(nn.Module):
    """Two 1x1 paths, one through ``repeats // 2`` bottlenecks of two blocks; concatenated and mixed (CSPStackRep).

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        repeats: blocks on the main path, 2 in each bottleneck; at least one bottleneck.
        expansion: width of the paths over that of the output.
        kind: of the blocks.
    """

    def __init__(self, in_channels: int, out_channels: int, repeats: int, *, expansion: float, kind: BlockKind) -> None:
        super().__init__()
        hidden, style = int(out_channels * expansion), block_style(kind)
        self.main = ConvNormAct(in_channels, hidden, style=style)
        self.bypass = ConvNormAct(in_channels, hidden, style=style)
        self.merge = ConvNormAct(2 * hidden, out_channels, style=style)
        self.blocks = nn.Sequential(*(BottleRep(hidden, kind=kind) for _ in range(max(repeats // 2, 1))))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        return self.merge(torch.cat((self.blocks(self.main(x)), self.bypass(x)), 1))


def body(form: Body, channels: int, repeats: int, *, expansion: float, kind: BlockKind) -> nn.Module:
    """``chain``: ``repeats`` blocks in a row; ``csp``: a `BepC3` of as many; input and output have ``channels``."""
    if form == "csp":
        return BepC3(channels, channels, repeats, expansion=expansion, kind=kind)
    return nn.Sequential(*(block(kind, channels, channels) for _ in range(repeats)))
