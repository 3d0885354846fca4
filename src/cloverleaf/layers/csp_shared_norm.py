"""Cross-stage partial blocks whose two paths share one normalisation (arXiv 1911.11929, 2011.08036, 2105.04206).

Both paths meet in a concatenation, over which one BatchNorm and one activation go. In evaluation mode a BatchNorm is an
affine map per channel, so it can be cut at the seam: what belongs to a path that ends in a bare convolution is folded
into that convolution, what belongs to a path that ends in an activation becomes a depth-wise 1x1 convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.csp import Bottleneck
from cloverleaf.layers.rep import conv_like, fold_norm
from cloverleaf.layers.spp import PyramidPool, after_pool, before_pool
from cloverleaf.layers.style import Style


class SharedNormJoin(nn.Module):
    """act(norm([transition(main), bypass(other)])): where two paths become one map.

    Args:
        main_channels: width of the main path.
        other_channels: width of what the bypass convolution reads.
        width: of each path in the concatenation; without a ``transition`` that of the main path.
        transition: end the main path in a bare 1x1 convolution.
        style: normalisation constants and activation.
    """

    def __init__(self, main_channels: int, other_channels: int, width: int, *, transition: bool, style: Style) -> None:
        super().__init__()
        if not transition and main_channels != width:
            raise ValueError(f"without a transition the main path keeps its {main_channels} channels, not {width}")
        self.transition = nn.Conv2d(main_channels, width, 1, bias=False) if transition else nn.Identity()
        self.bypass = nn.Conv2d(other_channels, width, 1, bias=False)
        self.norm = style.norm(2 * width)
        self.act = style.act()

    def forward(self, main: Tensor, other: Tensor) -> Tensor:
        """``(B, C_main, H, W)`` and ``(B, C_other, H, W)`` -> ``(B, 2 width, H, W)``, the main path first."""
        return self.act(self.norm(torch.cat((self.transition(main), self.bypass(other)), 1)))

    def reparameterized(self) -> FoldedJoin:
        """The normalisation cut in two and folded: nothing is left of it where both paths end in bare convolutions."""
        width = self.norm.num_features // 2
        first, second = (_part_of(self.norm, start, width) for start in (0, width))
        main = (
            self.transition if isinstance(self.transition, nn.Conv2d) else _unit_convolution(self.norm.weight[:width])
        )
        return FoldedJoin(_folded(main, first), _folded(self.bypass, second), self.act)


class FoldedJoin(nn.Module):
    """act([transition(main), bypass(other)]): what `SharedNormJoin` becomes for inference."""

    def __init__(self, transition: nn.Conv2d, bypass: nn.Conv2d, act: nn.Module) -> None:
        super().__init__()
        self.transition = transition
        self.bypass = bypass
        self.act = act

    def forward(self, main: Tensor, other: Tensor) -> Tensor:
        """``(B, C_main, H, W)`` and ``(B, C_other, H, W)`` -> ``(B, 2 width, H, W)``, the main path first."""
        return self.act(torch.cat((self.transition(main), self.bypass(other)), 1))


class SharedNormCspBlock(nn.Module):
    """`CspBlock` with a bare bypass and one normalisation over both paths.

    Published as BottleneckCSP with a ``transition`` and as BottleneckCSPF without.

    Args:
        in_channels: width of the input.
        out_channels: width of the output, even.
        depth: number of bottlenecks, which have residual connections.
        transition: a bare 1x1 convolution after the bottlenecks.
        style: normalisation constants and activation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, depth: int, *, style: Style, transition: bool = False
    ) -> None:
        super().__init__()
        half = out_channels // 2
        self.main = ConvNormAct(in_channels, half, style=style)
        self.blocks = _bottlenecks(half, depth, residual=True, style=style)
        self.join = SharedNormJoin(half, in_channels, half, transition=transition, style=style)
        self.merge = ConvNormAct(2 * half, out_channels, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        return self.merge(self.join(self.blocks(self.main(x)), x))


class SharedNormReversedCspBlock(nn.Module):
    """`ReversedCspBlock` with a bare bypass and one normalisation over both paths (published as BottleneckCSP2).

    Args:
        in_channels: width of the input.
        out_channels: width of the output and of both paths.
        depth: number of bottlenecks, which have no residual connections.
        style: normalisation constants and activation.
    """

    def __init__(self, in_channels: int, out_channels: int, depth: int, *, style: Style) -> None:
        super().__init__()
        self.enter = ConvNormAct(in_channels, out_channels, style=style)
        self.blocks = _bottlenecks(out_channels, depth, residual=False, style=style)
        self.join = SharedNormJoin(out_channels, out_channels, out_channels, transition=False, style=style)
        self.merge = ConvNormAct(2 * out_channels, out_channels, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        x = self.enter(x)
        return self.merge(self.join(self.blocks(x), x))


class SharedNormSpp(nn.Module):
    """`SppCspc` with a bare bypass and one normalisation over both paths (published as SPPCSP).

    Args:
        in_channels: width of the input.
        out_channels: width of the output and of both paths.
        windows: of the pools.
        mixes: pairs of a 1x1 and a 3x3 convolution after the pools.
        largest_first: the order of the pools' concatenation, see `PyramidPool`.
        style: normalisation constants and activation.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, style: Style, windows: Sequence[int] = (5, 9, 13),
        mixes: int = 1, largest_first: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        width = out_channels
        self.reduce = before_pool(in_channels, width, style=style)
        self.pool = PyramidPool(windows, largest_first=largest_first)
        self.mix = after_pool(width, 1 + len(windows), mixes, style=style)
        self.join = SharedNormJoin(width, in_channels, width, transition=False, style=style)
        self.merge = ConvNormAct(2 * width, out_channels, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        return self.merge(self.join(self.mix(self.pool(self.reduce(x))), x))


def _bottlenecks(channels: int, depth: int, *, residual: bool, style: Style) -> nn.Sequential:
    return nn.Sequential(
        *(Bottleneck(channels, expansion=1.0, residual=residual, style=style) for _ in range(depth))
    )  # fmt: skip


def _part_of(norm: nn.BatchNorm2d, start: int, width: int) -> nn.BatchNorm2d:
    """A normalisation of its channels ``start`` to ``start + width`` alone."""
    part = nn.BatchNorm2d(width, eps=norm.eps, momentum=norm.momentum, device="meta")
    tensors = {
        key: value[start : start + width] if value.ndim else value for key, value in norm.state_dict().items()
    }  # fmt: skip
    part.load_state_dict(tensors, assign=True)
    return part


def _unit_convolution(like: Tensor) -> nn.Conv2d:
    """A depth-wise 1x1 convolution that does nothing, for as many channels as ``like`` ``(C,)``, of its type."""
    conv = nn.Conv2d(len(like), len(like), 1, groups=len(like), bias=False, device="meta")
    conv.weight = nn.Parameter(torch.ones_like(like).reshape(-1, 1, 1, 1))
    return conv


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    return conv_like(conv, *fold_norm(conv.weight, conv.bias, norm))
