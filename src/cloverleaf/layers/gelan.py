"""Generalised efficient layer aggregation (GELAN, arXiv 2402.13616, section 4.2): ELAN over any blocks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.csp import CspBlock
from cloverleaf.layers.style import Style


class Gelan(nn.Module):
    """A 1x1 split into two halves, two blocks in a row from the second, all four mixed by a 1x1.

    Each block is a `CspBlock` of re-parameterisable bottlenecks and a 3x3 transition ("RepNCSPELAN4"), as wide as a
    half.

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        depth: bottlenecks of each block.
        hidden: width that is split, even; that of the output where None.
        style: normalisation constants and activation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, depth: int, *, style: Style, hidden: int | None = None
    ) -> None:
        super().__init__()
        half = (hidden or out_channels) // 2
        self.enter = ConvNormAct(in_channels, 2 * half, style=style)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                CspBlock(half, half, depth, first="rep", style=style), ConvNormAct(half, half, 3, style=style)
            )
            for _ in range(2)
        )
        self.merge = ConvNormAct(4 * half, out_channels, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        outputs = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            outputs.append(block(outputs[-1]))
        return self.merge(torch.cat(outputs, 1))
