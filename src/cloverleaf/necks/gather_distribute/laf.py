"""LAF, the lightweight adjacent-layer fusion: a level meets its neighbours before the injection."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.style import Style
from cloverleaf.ops.resize import bilinear_to, pool_to

_STYLE = Style(activation="relu")


class LowLaf(nn.Module):
    """Low-stage LAF: a map, its finer neighbour pooled and its coarser neighbour enlarged, concatenated and mixed.

    Args:
        finer: width of the finer neighbour; 0 where there is none.
        channels: width of the map.
        out_channels: width of the output, and of the coarser neighbour.
    """

    def __init__(self, finer: int, channels: int, out_channels: int) -> None:
        super().__init__()
        self.adapt = nn.Identity() if finer in (0, out_channels) else ConvNormAct(finer, out_channels, style=_STYLE)
        self.reduce = ConvNormAct(channels, out_channels, style=_STYLE)
        self.mix = ConvNormAct(out_channels * (3 if finer else 2), out_channels, style=_STYLE)

    def forward(self, finer: Tensor | None, x: Tensor, coarser: Tensor) -> Tensor:
        """Three maps of one image -> ``(B, C_out, H, W)``, the size of ``x``; ``finer`` is None where there is none."""
        size_hw = (x.shape[2], x.shape[3])
        maps = [] if finer is None else [self.adapt(pool_to(finer, size_hw))]
        return self.mix(torch.cat((*maps, self.reduce(x), bilinear_to(coarser, size_hw)), 1))


class HighLaf(nn.Module):
    """High-stage LAF: the finer neighbour pooled to the size of a map and concatenated with it; no weights."""

    def forward(self, finer: Tensor, x: Tensor) -> Tensor:
        """``(B, C_f, H_f, W_f)`` and ``(B, C, H, W)`` -> ``(B, C_f + C, H, W)``."""
        return torch.cat((pool_to(finer, (x.shape[2], x.shape[3])), x), 1)
