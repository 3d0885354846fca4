"""One column: four levels, each a multi-level reversible unit (arXiv 2212.11696, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cloverleaf.backbones.revcol.fusion import Fusion

LEAST_SCALE = 1e-3
_START = 0.5

Features = tuple[Tensor, ...]


class Level(nn.Module):
    """F of a reversible unit: fusion, then blocks. It may read whatever does not break the inverse, see `forward`."""

    def __init__(self, fusion: Fusion, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.fusion = fusion
        self.blocks = nn.Sequential(*blocks)

    def forward(self, stem: Tensor, own: Sequence[Tensor], higher: Sequence[Tensor]) -> Tensor:
        """Residual of this level.

        Args:
            stem: output of the stem, which every column sees.
            own: finer maps of this column, finest first.
            higher: coarser maps of the left column, finest first; none in the first column.
        """
        merged: Tensor = self.blocks(self.fusion(stem, own, higher))
        return merged


class Column(nn.Module):
    """c'_k = scale_k * c_k + F_k(stem, c'_0 ... c'_{k-1}, c_{k+1} ... c_3), from the finest level to the coarsest.

    Args:
        levels: F_k.
        channels: of the levels.
        first: there is no left column, and no scale.
    """

    def __init__(self, levels: Sequence[Level], channels: Sequence[int], *, first: bool) -> None:
        super().__init__()
        self.levels = nn.ModuleList(levels)
        self.first = first
        self.scales = nn.ParameterList([] if first else [torch.full((1, c, 1, 1), _START) for c in channels])

    def forward(self, stem: Tensor, left: Features) -> Features:
        """Features of the left column, none in the first -> features of this one, finest first, float32 at least."""
        return self.run(stem, left, self.effective_scales())

    def run(self, stem: Tensor, left: Features, scales: Sequence[Tensor]) -> Features:
        """`forward` with given scales."""
        own: list[Tensor] = []
        for k, level in enumerate(self.levels):
            residual = widened(level(stem, own, left[k + 1 :]))
            own.append(scales[k] * left[k] + residual if left else residual)
        return tuple(own)

    def effective_scales(self) -> list[Tensor]:
        """The scales, kept away from zero, by which the inverse divides; gradients pass as if nothing had been done."""
        return [scale + (kept_from_zero(scale) - scale).detach() for scale in self.scales]


def kept_from_zero(scale: Tensor) -> Tensor:
    """Values of a magnitude below `LEAST_SCALE` get that magnitude and keep their sign; zero becomes positive."""
    sign = torch.where(scale < 0, -1.0, 1.0).to(scale)
    return sign * scale.abs().clamp(min=LEAST_SCALE)


def widened(x: Tensor) -> Tensor:
    """At least float32, in which features are kept and inverted."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
