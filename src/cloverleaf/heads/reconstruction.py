"""Decoders from a backbone's coarsest map back to the image (arXiv 2212.11696, section 2.3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from cloverleaf.layers.convnext import ChannelNorm, ConvNeXtBlock, initialise


class DecoderStage(nn.Module):
    """A narrower map of twice the size: projection, norm, GELU, bilinear enlargement, a ConvNeXt block."""

    def __init__(self, channels: int, narrower: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, narrower, 1)
        self.norm = ChannelNorm(narrower)
        self.block = ConvNeXtBlock(narrower, kernel_size=3, expansion=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', 2 h, 2 w)."""
        x = F.gelu(self.norm(self.project(x)))
        enlarged: Tensor = self.block(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))
        return enlarged


class FullDecoder(nn.Module):
    """From the coarsest width through those of the finer levels to that of the finest, then its cells to pixels.

    Args:
        channels: width of the backbone's levels, finest first; strides double from one to the next.
        stride: of the finest level.
    """

    def __init__(self, channels: Sequence[int], stride: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(DecoderStage(wide, narrow) for wide, narrow in pairwise(channels[::-1]))
        self.to_pixels = nn.Conv2d(channels[0], 3 * stride**2, 1)
        self.stride = stride
        self.apply(initialise)

    def forward(self, x: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """(B, C, h, w), the coarsest map -> (B, 3, H, W) logits."""
        for stage in self.stages:
            x = stage(x)
        return _fitted(F.pixel_shuffle(self.to_pixels(x), self.stride), size_hw)


class SimpleDecoder(nn.Module):
    """From each cell of the coarsest map to its pixels, by one linear layer.

    Args:
        channels: width of that map.
        stride: of that map.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.to_pixels = nn.Conv2d(channels, 3 * stride**2, 1)
        self.stride = stride
        self.apply(initialise)

    def forward(self, x: Tensor, size_hw: tuple[int, int]) -> Tensor:
        """(B, C, h, w) -> (B, 3, H, W) logits."""
        return _fitted(F.pixel_shuffle(self.to_pixels(self.norm(x)), self.stride), size_hw)


def _fitted(image: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """At the size of the input, which differs where the coarsest stride does not divide it."""
    if image.shape[2:] == size_hw:
        return image
    return F.interpolate(image, size=size_hw, mode="bilinear", align_corners=False)
