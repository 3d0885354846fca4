"""The decoder of masked pre-training: from a backbone's sparse maps back to pixels (arXiv 2301.03580, section 3.3)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cloverleaf.errors import ConfigError
from cloverleaf.layers.sparse.cells import VisibleCells
from cloverleaf.layers.sparse.layers import sparse_layer
from cloverleaf.structures import FeatureSpec

WIDEST = 768  # the published width
Norm = type[nn.BatchNorm2d]


class Densify(nn.Module):
    """One sparse map as a dense one: norm over visible positions, a learned token at the others, a projection.

    Args:
        channels: width of the map.
        width: width in the decoder.
        kernel: of the projection; a 1x1 between equal widths is left out.
        cells: what is visible.
        norm: kind of the norm.
    """

    def __init__(self, channels: int, width: int, kernel: int, cells: VisibleCells, norm: Norm) -> None:
        super().__init__()
        sparse = sparse_layer(norm(channels), cells)
        assert sparse is not None
        self.norm = sparse
        self.token = nn.Parameter(torch.empty(1, channels, 1, 1))
        same = kernel == 1 and channels == width
        self.project = nn.Identity() if same else nn.Conv2d(channels, width, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` -> ``(B, width, h, w)``."""
        normalised = self.norm(x)
        visible = self.norm.cells.mask(x.shape[2], x.shape[3], torch.bool)
        dense: Tensor = self.project(torch.where(visible, normalised, self.token.to(normalised.dtype)))
        return dense


class UpBlock(nn.Module):
    """Twice the size and half the width: a transposed convolution, then two 3x3 with BatchNorm."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, in_channels, 4, stride=2, padding=1)
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, padding=1, bias=False)
        self.norm1 = norm(in_channels)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = norm(out_channels)
        self.act = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, h, w)`` -> ``(B, C_out, 2 h, 2 w)``."""
        x = self.act(self.norm1(self.conv1(self.up(x))))
        y: Tensor = self.norm2(self.conv2(x))
        return y


class LightDecoder(nn.Module):
    """UNet-like: from the coarsest map to pixels, each finer map added at its resolution.

    Args:
        features: of the backbone; strides are powers of two, each twice the one before.
        width: W of the coarsest level, halved by every block; 0 takes `default_width`.
        cells: what is visible, as in the encoder.
        norm: kind of all norms.

    Raises:
        ConfigError: strides that do not double, or a width that cannot be halved so often.
    """

    def __init__(self, features: FeatureSpec, width: int, cells: VisibleCells, *, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        steps = _doublings(features)
        width = width or default_width(features)
        if width % 2**steps:
            raise ConfigError(
                f"decoder.width = {width} is not possible here",
                f"it is halved {steps} times on the way to the pixels",
                f"use a multiple of {2**steps}, such as {max(width // 2**steps, 1) * 2**steps}",
            )
        widths = [width >> i for i in range(steps + 1)]
        self.densify = nn.ModuleList(
            Densify(channels, wide, 1 if i == 0 else 3, cells, norm)
            for i, (channels, wide) in enumerate(zip(features.channels[::-1], widths, strict=False))
        )
        self.blocks = nn.ModuleList(UpBlock(wide, narrow, norm) for wide, narrow in itertools.pairwise(widths))
        self.to_pixels = nn.Conv2d(widths[-1], 3, 1)
        _initialise(self)

    def densified(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The backbone's maps, finest first -> dense maps of decoder widths, deepest first."""
        return [densify(x) for densify, x in zip(self.densify, maps[::-1], strict=True)]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The backbone's maps, finest first -> ``(B, 3, H, W)`` in the units of normalised patches."""
        dense = self.densified(maps)
        x = dense[0]
        for i, block in enumerate(self.blocks):
            x = block(x + dense[i] if 0 < i < len(dense) else x)
        pixels: Tensor = self.to_pixels(x)
        return pixels


def default_width(features: FeatureSpec) -> int:
    """The width of the coarsest map, rounded down to what can be halved, at most `WIDEST`."""
    unit = 2 ** _doublings(features)
    return max(min(features.channels[-1], WIDEST) // unit, 1) * unit


def _doublings(features: FeatureSpec) -> int:
    """How often the coarsest map must double to reach the pixels."""
    steps = math.log2(features.strides[-1])
    doubled = [features.strides[-1] >> i for i in range(len(features))][::-1]
    if not steps.is_integer() or list(features.strides) != doubled:
        raise ConfigError(
            f"a backbone with maps of strides {features.strides} cannot be pre-trained",
            "the decoder doubles the resolution from each map to the next and on to the pixels",
            "choose a backbone whose strides are powers of two, each twice the one before",
        )
    return int(steps)


def _initialise(decoder: LightDecoder) -> None:
    for module in decoder.modules():
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Conv2d):
            nn.init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, Densify):
            nn.init.trunc_normal_(module.token, std=0.02)
        if isinstance(module, nn.ConvTranspose2d | nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
