"""Convolution, normalisation, activation: the brick of every network here."""

from __future__ import annotations

from torch import Tensor, nn

from cloverleaf.layers.rep import conv_like, fold_norm
from cloverleaf.layers.style import Style


class ConvNormAct(nn.Module):
    """Convolution, BatchNorm, activation; padding ``kernel // 2``.

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        kernel: odd side of the kernel.
        stride: of the convolution.
        style: normalisation constants and activation.
        groups: of the convolution.
        bias: of the convolution; the normalisation makes it useless, and some published models have it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, *, style: Style, groups: int = 1,
        bias: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=bias)
        self.norm = style.norm(out_channels)
        self.act = style.act()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, ceil(H / stride), ceil(W / stride))``."""
        return self.act(self.norm(self.conv(x)))

    def reparameterized(self) -> ConvAct:
        """The normalisation folded into the convolution."""
        weight, bias = fold_norm(self.conv.weight, self.conv.bias, self.norm)
        return ConvAct(conv_like(self.conv, weight, bias), self.act)


class ConvAct(nn.Module):
    """Convolution with bias, activation: what `ConvNormAct` becomes for inference."""

    def __init__(self, conv: nn.Conv2d, act: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, ceil(H / stride), ceil(W / stride))``."""
        return self.act(self.conv(x))
