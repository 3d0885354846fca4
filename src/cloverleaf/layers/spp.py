"""Spatial pyramid pooling: one map pooled over several windows, so that a cell sees far around itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.style import Style


class PyramidPool(nn.Module):
    """Concatenates stride-1 max-pools of ``x``, the largest window first, then ``x`` itself.

    The windows are built one from another (a 5-window of a 5-window is a 9-window), which costs the smallest one each.

    Args:
        windows: odd sides, ascending.
        largest_first: the order of the concatenation; False is ``x`` first, then ascending windows.
    """

    def __init__(self, windows: Sequence[int] = (5, 9, 13), *, largest_first: bool = True) -> None:
        super().__init__()
        steps = [after - before + 1 for before, after in zip((1, *windows[:-1]), windows, strict=True)]
        if any(step < 3 or step % 2 == 0 for step in steps):
            raise ValueError(f"windows must be odd and ascending, got {tuple(windows)}")
        self.largest_first = largest_first
        self.pools = nn.ModuleList(nn.MaxPool2d(step, 1, step // 2) for step in steps)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, C * (1 + len(windows)), H, W)``."""
        maps = [x]
        for pool in self.pools:
            maps.append(pool(maps[-1]))
        return torch.cat(maps[::-1] if self.largest_first else maps, 1)


class CspSpp(nn.Module):
    """Pyramid pooling on one of two paths (YOLOv7-tiny's form, all convolutions 1x1).

    Args:
        in_channels: width of the input.
        out_channels: width of the output and of both paths.
        windows: of the pools.
        style: normalisation constants and activation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, style: Style, windows: Sequence[int] = (5, 9, 13)
    ) -> None:
        super().__init__()
        self.bypass = ConvNormAct(in_channels, out_channels, style=style)
        self.reduce = ConvNormAct(in_channels, out_channels, style=style)
        self.pool = PyramidPool(windows)
        self.mix = ConvNormAct(out_channels * (1 + len(windows)), out_channels, style=style)
        self.merge = ConvNormAct(2 * out_channels, out_channels, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        pooled = self.mix(self.pool(self.reduce(x)))
        return self.merge(torch.cat((pooled, self.bypass(x)), 1))


class Sppf(nn.Module):
    """Pyramid pooling between two 1x1 convolutions (SPPF, SimSPPF; with a width of its own the SPPELAN of YOLOv9).

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        windows: of the pools.
        width: of what is pooled; half of the input's where None.
        style: normalisation constants and activation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, style: Style, windows: Sequence[int] = (5, 9, 13),
        width: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        width = width or in_channels // 2
        self.reduce = ConvNormAct(in_channels, width, style=style)
        self.pool = PyramidPool(windows, largest_first=False)
        self.mix = ConvNormAct(width * (1 + len(windows)), out_channels, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        return self.mix(self.pool(self.reduce(x)))


def before_pool(in_channels: int, width: int, *, style: Style) -> nn.Sequential:
    """The three convolutions that make what `SppCspc` pools: 1x1, 3x3, 1x1."""
    return nn.Sequential(
        ConvNormAct(in_channels, width, style=style),
        ConvNormAct(width, width, 3, style=style),
        ConvNormAct(width, width, style=style),
    )


def after_pool(width: int, maps: int, mixes: int, *, style: Style) -> nn.Sequential:
    """``mixes`` pairs of a 1x1 and a 3x3 convolution, of as many concatenated ``maps`` of ``width``."""
    before = [width * maps, *[width] * (2 * mixes - 1)]
    return nn.Sequential(
        *(ConvNormAct(channels, width, 1 if i % 2 == 0 else 3, style=style) for i, channels in enumerate(before))
    )


class SppCspc(nn.Module):
    """Pyramid pooling between three convolutions before and two after, on one of two paths.

    As published for YOLOv7 (SPPCSPC), and with other numbers for Gold-YOLO (CSPSPPF, SimCSPSPPF) and Scaled-YOLOv4.

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        windows: of the pools.
        width: of both paths; that of the output where None.
        bypass_first: the order of the last concatenation.
        mixes: pairs of a 1x1 and a 3x3 convolution after the pools.
        largest_first: the order of the pools' concatenation, see `PyramidPool`.
        style: normalisation constants and activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        style: Style,
        windows: Sequence[int] = (5, 9, 13),
        width: int | None = None,
        bypass_first: bool = False,
        mixes: int = 1,
        largest_first: bool = False,
    ) -> None:
        super().__init__()
        width = width or out_channels
        self.bypass_first = bypass_first
        self.bypass = ConvNormAct(in_channels, width, style=style)
        self.reduce = before_pool(in_channels, width, style=style)
        self.pool = PyramidPool(windows, largest_first=largest_first)
        self.mix = after_pool(width, 1 + len(windows), mixes, style=style)
        self.merge = ConvNormAct(2 * width, out_channels, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        paths = (self.mix(self.pool(self.reduce(x))), self.bypass(x))
        return self.merge(torch.cat(paths[::-1] if self.bypass_first else paths, 1))
