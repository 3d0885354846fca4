"""Cross-stage partial blocks (arXiv 1911.11929): residual bottlenecks on one half of the channels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.planned import ConvKind, conv3x3
from cloverleaf.layers.rep_conv import RepConv
from cloverleaf.layers.style import Style

First = Literal["1x1", "3x3", "rep"]


class Bottleneck(nn.Module):
    """x + conv3x3(first(x)).

    Args:
        channels: width of input and output.
        expansion: width between the two convolutions over ``channels``.
        residual: add the input.
        conv: kind of the second convolution; a residual connection follows it.
        first: the first convolution: 1x1, 3x3, or a RepConv without identity.
        style: normalisation constants and activation.
    """

    def __init__(
        self, channels: int, *, style: Style, expansion: float = 0.5, residual: bool = True, conv: ConvKind = "conv",
        first: First = "1x1",
    ) -> None:  # fmt: skip
        super().__init__()
        hidden = int(channels * expansion)
        self.residual = residual
        self.reduce: nn.Module
        if first == "rep":
            self.reduce = RepConv(channels, hidden, style=style, identity=False)
        else:
            self.reduce = ConvNormAct(channels, hidden, 3 if first == "3x3" else 1, style=style)
        self.expand = conv3x3(conv, hidden, channels, place="residual" if residual else "plain", style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        y = self.expand(self.reduce(x))
        return x + y if self.residual else y


class CspBlock(nn.Module):
    """Two 1x1 paths of half the output's width, one through bottlenecks; concatenated and mixed ("C3").

    With a ``transition`` it is the block of CSPNet's and Scaled-YOLOv4's backbones.

    Args:
        in_channels: width of the input.
        out_channels: width of the output, even.
        depth: number of bottlenecks.
        conv, residual, first: of the bottlenecks.
        transition: a 1x1 convolution after the bottlenecks, before the concatenation.
        style: normalisation constants and activation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, depth: int, *, style: Style, conv: ConvKind = "conv",
        residual: bool = True, first: First = "1x1", transition: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        half = out_channels // 2
        self.main = ConvNormAct(in_channels, half, style=style)
        self.bypass = ConvNormAct(in_channels, half, style=style)
        self.blocks = nn.Sequential(
            *(
                Bottleneck(half, expansion=1.0, residual=residual, conv=conv, first=first, style=style)
                for _ in range(depth)
            )
        )
        self.transition = ConvNormAct(half, half, style=style) if transition else nn.Identity()
        self.merge = ConvNormAct(2 * half, out_channels, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        return self.merge(torch.cat((self.transition(self.blocks(self.main(x))), self.bypass(x)), 1))


class ReversedCspBlock(nn.Module):
    """A 1x1 to the output's width, then two paths, one through bottlenecks; concatenated and mixed ("rCSP").

    The block of the necks of Scaled-YOLOv4 (arXiv 2011.08036): the paths part after the first convolution, and the
    bottlenecks have no residual connections.

    Args:
        in_channels: width of the input.
        out_channels: width of the output and of both paths.
        depth: number of bottlenecks.
        style: normalisation constants and activation.
    """

    def __init__(self, in_channels: int, out_channels: int, depth: int, *, style: Style) -> None:
        super().__init__()
        self.enter = ConvNormAct(in_channels, out_channels, style=style)
        self.bypass = ConvNormAct(out_channels, out_channels, style=style)
        self.blocks = nn.Sequential(
            *(Bottleneck(out_channels, expansion=1.0, residual=False, style=style) for _ in range(depth))
        )
        self.merge = ConvNormAct(2 * out_channels, out_channels, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        x = self.enter(x)
        return self.merge(torch.cat((self.blocks(x), self.bypass(x)), 1))


class CspChain(nn.Module):
    """A 1x1 split into two halves, a chain of bottlenecks from the second, all outputs mixed ("C2f" of YOLOv8).

    It is a cross-stage partial block that, as ELAN does, keeps what every bottleneck gives.

    Args:
        in_channels: width of the input.
        out_channels: width of the output, even.
        depth: number of bottlenecks, of two 3x3 convolutions each.
        residual: of the bottlenecks.
        style: normalisation constants and activation.
    """

    def __init__(self, in_channels: int, out_channels: int, depth: int, *, style: Style, residual: bool = True) -> None:
        super().__init__()
        half = out_channels // 2
        self.enter = ConvNormAct(in_channels, 2 * half, style=style)
        self.blocks = nn.ModuleList(
            Bottleneck(half, expansion=1.0, residual=residual, first="3x3", style=style) for _ in range(depth)
        )
        self.merge = ConvNormAct((2 + depth) * half, out_channels, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        outputs = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            outputs.append(block(outputs[-1]))
        return self.merge(torch.cat(outputs, 1))
