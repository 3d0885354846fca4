"""The block of ConvNeXt (arXiv 2201.03545) and its normalisation over channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

from cloverleaf.layers.perceptron import scaled_perceptron

_LAYER_SCALE = 1e-6  # at the start, so that a fresh block is nearly the identity
_DEVIATION = 0.02


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of every position: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Mean and biased variance over C; computed in float32 under autocast."""
        last = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return last.permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, norm, and a perceptron at every position, added to the input.

    Args:
        channels: C, in and out.
        kernel_size: of the depthwise convolution, odd.
        expansion: width inside the perceptron over C.
        drop_path: probability with which a sample skips the block in training.
    """

    def __init__(self, channels: int, *, kernel_size: int = 3, expansion: int = 4, drop_path: float = 0.0) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        self.norm = ChannelNorm(channels)
        self.expand = nn.Conv2d(channels, expansion * channels, 1)
        self.project = nn.Conv2d(expansion * channels, channels, 1)
        self.layer_scale = nn.Parameter(torch.full((channels,), _LAYER_SCALE))
        self.drop_path: nn.Module = StochasticDepth(drop_path, "row") if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        inner = self.norm(self.depthwise(x))
        skipped: Tensor = self.drop_path(self._learned(inner) if self._learning() else self._plain(inner))
        return x + skipped

    def _learning(self) -> bool:
        """Whether gradients are wanted and the layers are what they seem (those of a sparse encoder do more)."""
        wanted = self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling()
        return wanted and type(self.expand) is type(self.project) is nn.Conv2d

    def _plain(self, x: Tensor) -> Tensor:
        inner: Tensor = self.project(F.gelu(self.expand(x)))
        return inner * self.layer_scale[:, None, None]

    def _learned(self, x: Tensor) -> Tensor:
        """`_plain` with less to keep for the backward pass."""
        assert self.expand.bias is not None and self.project.bias is not None
        expand = self.expand.weight.flatten(1), self.expand.bias
        project = self.project.weight.flatten(1), self.project.bias
        return scaled_perceptron(x.permute(0, 2, 3, 1), expand, project, self.layer_scale).permute(0, 3, 1, 2)


def initialise(module: nn.Module) -> None:
    """Weights of convolutions and linear layers normal with deviation 0.02, biases 0.

    Published for RevCol with a truncation at 100 deviations, which changes nothing.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.normal_(module.weight, std=_DEVIATION)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
