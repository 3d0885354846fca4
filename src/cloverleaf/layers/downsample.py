"""Halving the size of a map without a plain stride: pixels to channels, or a convolution and a pool."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.style import Style

Halving = Literal["conv", "split"]
CspHalving = Literal["conv", "pooled-csp"]


class SpaceToDepth(nn.Module):
    """Every 2x2 square of pixels becomes one cell of four times the channels; nothing is lost ("ReOrg").

    The order of (row, column) parities is (0, 0), (1, 0), (0, 1), (1, 1), as published.
    """

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, 4 C, H / 2, W / 2)``."""
        return torch.cat((x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]), 1)


class HaarWavelet(nn.Module):
    """Every 2x2 square of pixels becomes its mean and its three differences (one level of the Haar wavelet).

    With a, b over c, d the pixels of a square: (a + b + c + d) / 4 of every channel, then for one channel after another
    (a + b - c - d) / 4, (a - b + c - d) / 4 and (a - b - c + d) / 4, each plus 1 / 2. An image in [0, 1] stays in
    [0, 1], and nothing is lost. YOLOR's "DWT" form reads images by it, where others use `SpaceToDepth`.

    Args:
        channels: width of the input.
    """

    kernel: Tensor
    offset: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        signs = torch.tensor([[[1.0, 1.0], [-1.0, -1.0]], [[1.0, -1.0], [1.0, -1.0]], [[1.0, -1.0], [-1.0, 1.0]]])
        self.register_buffer("kernel", (signs / 4)[:, None].repeat(channels, 1, 1, 1), persistent=False)
        self.register_buffer("offset", torch.full((3 * channels,), 0.5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` with even H and W -> ``(B, 4 C, H / 2, W / 2)``."""
        differences = functional.conv2d(x, self.kernel, self.offset, stride=2, groups=x.shape[1])
        return torch.cat((functional.avg_pool2d(x, 2), differences), 1)


class PooledDown(nn.Module):
    """A stride-2 convolution behind a 1x1, concatenated with a 1x1 behind a max-pool, half of the output each.

    It is the transition of YOLOv7 and X (``inner`` half of the output) and the DownC of E6, D6 and E6E (``inner`` equal
    to the input).

    Args:
        in_channels: width of the input.
        out_channels: width of the output, even.
        inner: width between the 1x1 and the stride-2 convolution.
        style: normalisation constants and activation.
    """

    def __init__(self, in_channels: int, out_channels: int, *, inner: int, style: Style) -> None:
        super().__init__()
        half = out_channels // 2
        self.reduce = ConvNormAct(in_channels, inner, style=style)
        self.stride = ConvNormAct(inner, half, 3, 2, style=style)
        self.pool = nn.MaxPool2d(2)
        self.pooled = ConvNormAct(in_channels, half, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` with even H and W -> ``(B, C_out, H / 2, W / 2)``."""
        return torch.cat((self.stride(self.reduce(x)), self.pooled(self.pool(x))), 1)


class SplitDown(nn.Module):
    """Means of neighbours, then a stride-2 convolution of one half of the channels and a max-pool of the other.

    The down-sampling of YOLOv9 ("ADown"): half of the input meets the 3x3 convolution, half a 1x1 behind the pool.

    Args:
        in_channels: width of the input, even.
        out_channels: width of the output, even.
        style: normalisation constants and activation.
    """

    def __init__(self, in_channels: int, out_channels: int, *, style: Style) -> None:
        super().__init__()
        self.mean = nn.AvgPool2d(2, 1)
        self.stride = ConvNormAct(in_channels // 2, out_channels // 2, 3, 2, style=style)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.pooled = ConvNormAct(in_channels // 2, out_channels // 2, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` with even H and W -> ``(B, C_out, H / 2, W / 2)``."""
        one, other = self.mean(x).chunk(2, 1)
        return torch.cat((self.stride(one), self.pooled(self.pool(other))), 1)


def halving(kind: Halving | CspHalving, in_channels: int, out_channels: int, *, style: Style) -> nn.Module:
    """``conv``: a 3x3 convolution of stride 2; ``split``: a `SplitDown`; ``pooled-csp``: a `PooledDown` as DownC."""
    match kind:
        case "conv":
            return ConvNormAct(in_channels, out_channels, 3, 2, style=style)
        case "split":
            return SplitDown(in_channels, out_channels, style=style)
        case "pooled-csp":
            return PooledDown(in_channels, out_channels, inner=in_channels, style=style)
