"""How a level of a column merges what comes from below with what the left column has seen at coarser levels."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from cloverleaf.layers.convnext import ChannelNorm
from cloverleaf.layers.patches import NormedPatches, PatchConv2d
from cloverleaf.layers.rep import conv_like, fold_norm


class Projection(nn.Module):
    """A map at the width of another level: 1x1 convolution and norm."""

    def __init__(self, coming: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(coming, channels, 1)
        self.norm: nn.Module = ChannelNorm(channels)

    def reparameterized(self) -> Projection:
        """With the norm folded into the convolution where it is a BatchNorm."""
        folded = copy.copy(self)
        if isinstance(self.norm, nn.BatchNorm2d):
            folded._modules = dict(self._modules)
            folded.project = conv_like(self.project, *fold_norm(self.project.weight, self.project.bias, self.norm))
            folded.norm = nn.Identity()
        return folded


class Up(Projection):
    """A coarser map at the width and size of a finer one, enlarged to the nearest neighbour."""

    def forward(self, x: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """(B, C', h, w) -> (B, C, H, W); any sizes, as published for segmentation."""
        return F.interpolate(self.norm(self.project(x)), size=size_hw, mode="nearest")


class Fusion(nn.Module):
    """The plain sum of the map from below, halved, and of coarser maps of the left column.

    Args:
        below: width of what comes from below; the same as ``channels`` on the finest level, which is not halved.
        channels: width of the level.
        higher: width of each coarser map of the left column that is read, by its place above this level (0: the next).
        halve: whether what comes from below is finer.
    """

    def __init__(self, below: int, channels: int, higher: dict[int, int], *, halve: bool) -> None:
        super().__init__()
        self.down: nn.Module = nn.Identity()
        if halve:
            self.down = NormedPatches(PatchConv2d(below, channels, 2), ChannelNorm(channels))
        self.sources = tuple(higher)
        self.ups = nn.ModuleList(Up(coming, channels) for coming in higher.values())

    def forward(self, stem: Tensor, own: Sequence[Tensor], higher: Sequence[Tensor]) -> Tensor:
        """Merge what `Level.forward` may read, see there -> (B, C, H, W)."""
        merged, *others = self.branches(stem, own, higher)
        for other in others:
            merged = other + merged
        return merged

    def branches(self, stem: Tensor, own: Sequence[Tensor], higher: Sequence[Tensor]) -> list[Tensor]:
        """What is summed, each (B, C, H, W): first what comes from below, the stem on the finest level."""
        below: Tensor = self.down(own[-1] if own else stem)
        size_hw = (below.shape[2], below.shape[3])
        return [below, *(up(higher[source], size_hw) for source, up in zip(self.sources, self.ups, strict=True))]
