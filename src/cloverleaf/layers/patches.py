"""Patches that do not overlap: a linear layer over each of them, and a norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cloverleaf.layers.rep import conv_like, fold_norm


class PatchConv2d(nn.Conv2d):
    """A convolution whose stride is its kernel size, without padding.

    While training it is computed as a matrix product, whose gradients need fewer copies of the weights than those of a
    convolution; otherwise as the convolution that it is.

    Args:
        in_channels: C.
        out_channels: C'.
        size: side of a patch, k.
    """

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__(in_channels, out_channels, size, size)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, C', H // k, W // k)``."""
        if not (self.training and torch.is_grad_enabled()) or torch.compiler.is_compiling():
            return super().forward(x)
        size = self.kernel_size[0]
        height, width = x.shape[2] // size, x.shape[3] // size
        x = x[..., : height * size, : width * size]
        patches = x.unflatten(3, (width, size)).unflatten(2, (height, size)).permute(0, 2, 4, 1, 3, 5)
        return F.linear(patches.flatten(3), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class NormedPatches(nn.Sequential):
    """A convolution of patches and a norm, which is folded for inference where it is a BatchNorm.

    Args:
        conv: the convolution, whose stride is its kernel size.
        norm: over its channels.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.Module) -> None:
        super().__init__(conv, norm)

    def reparameterized(self) -> nn.Module:
        """One convolution where the norm can be folded, otherwise this module."""
        conv, norm = self[0], self[1]
        if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
            return self
        return conv_like(conv, *fold_norm(conv.weight, conv.bias, norm))
