"""RepConv: three branches while training, one convolution afterwards (arXiv 2101.03697; 2207.02696, section 4.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvAct
from cloverleaf.layers.rep import conv_like, fold_norm
from cloverleaf.layers.style import Style


class RepConv(nn.Module):
    """act(BN(conv3x3(x)) + BN(conv1x1(x)) [+ BN(x)]); without the last term it is the RepConvN of YOLOv7.

    Args:
        in_channels: width of the input.
        out_channels: width of the output.
        stride: of both convolutions.
        style: normalisation constants and activation.
        identity: the branch BN(x) is wanted. It exists only where input and output have the same shape. Whether it
            should be wanted is decided by what follows; see `cloverleaf.layers.planned`.
        groups: of both convolutions.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, style: Style, identity: bool = True,
        groups: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        fits = in_channels == out_channels and stride == 1
        self.identity_norm = style.norm(out_channels) if identity and fits else None
        self.dense = nn.Conv2d(in_channels, out_channels, 3, stride, 1, groups=groups, bias=False)
        self.dense_norm = style.norm(out_channels)
        self.point = nn.Conv2d(in_channels, out_channels, 1, stride, groups=groups, bias=False)
        self.point_norm = style.norm(out_channels)
        self.act = style.act()

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, ceil(H / stride), ceil(W / stride))``."""
        y = self.dense_norm(self.dense(x)) + self.point_norm(self._pointwise(x))
        if self.identity_norm is not None:
            y = y + self.identity_norm(x)
        return self.act(y)

    def _pointwise(self, x: Tensor) -> Tensor:
        """The 1x1 branch. A stride is taken from the input: PyTorch's CPU library crashes in the gradient of 1x1
        convolutions of stride 2 over 2 to 12 channels in channels-last order (seen with torch 2.14)."""
        stride = self.point.stride[0]
        if stride == 1:
            return self.point(x)
        return F.conv2d(x[..., ::stride, ::stride], self.point.weight, groups=self.point.groups)

    @torch.no_grad()
    def reparameterized(self) -> ConvAct:
        """One convolution: the 1x1 kernel and the identity are 3x3 kernels that are zero off their centre."""
        weight, bias = fold_norm(self.dense.weight, None, self.dense_norm)
        point, point_bias = fold_norm(self.point.weight, None, self.point_norm)
        weight, bias = weight + F.pad(point, [1] * 4), bias + point_bias
        if self.identity_norm is not None:
            kernel = torch.zeros_like(weight)
            nn.init.dirac_(kernel, self.dense.groups)
            same, same_bias = fold_norm(kernel, None, self.identity_norm)
            weight, bias = weight + same, bias + same_bias
        return ConvAct(conv_like(self.dense, weight, bias), self.act)
