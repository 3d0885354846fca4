"""The transformer of the high-stage IFM: attention between all cells of one small map."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.style import Style

# The neck's parts that the published code builds for synchronisation over processes have PyTorch's own constants.
PLAIN = Style(activation="identity", norm_eps=1e-5, norm_momentum=0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerForm:
    """Numbers of the transformer.

    Attributes:
        depth: blocks.
        heads: of the attention.
        key_dim: width of queries and keys per head; values are `value_ratio` times as wide.
        value_ratio: see there.
        mlp_ratio: width inside the MLP over that of the map.
        drop_path: probability to skip a branch of the last block in training; it grows linearly from 0 over the blocks.
    """

    depth: int = 2
    heads: int = 4
    key_dim: int = 8
    value_ratio: float = 2.0
    mlp_ratio: float = 1.0
    drop_path: float = 0.1


class Attention(nn.Module):
    """Multi-head attention of 1x1 convolutions with BatchNorm (after LeViT, arXiv 2104.01136), not scaled.

    The dot products are not divided by the root of the key width: the published code computes the factor and leaves it
    out (docs/fidelity.md, entry 66).
    """

    def __init__(self, channels: int, form: TransformerForm) -> None:
        super().__init__()
        self.heads = form.heads
        keys, values = form.heads * form.key_dim, form.heads * int(form.value_ratio * form.key_dim)
        self.query = ConvNormAct(channels, keys, style=PLAIN)
        self.key = ConvNormAct(channels, keys, style=PLAIN)
        self.value = ConvNormAct(channels, values, style=PLAIN)
        self.act = nn.ReLU6()
        self.project = ConvNormAct(values, channels, style=PLAIN)
        assert isinstance(self.project.norm, nn.BatchNorm2d)
        nn.init.zeros_(self.project.norm.weight)  # the block starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape; every cell sees every cell."""
        parts = (self.query, self.key, self.value)
        query, key, value = (part(x).flatten(2).unflatten(1, (self.heads, -1)) for part in parts)
        weights = (query.transpose(-2, -1) @ key).softmax(-1)
        mixed = (value @ weights.transpose(-2, -1)).flatten(1, 2).unflatten(2, (x.shape[2], x.shape[3]))
        return self.project(self.act(mixed))


class Mlp(nn.Module):
    """1x1 convolution, depth-wise 3x3 convolution, ReLU6, 1x1 convolution."""

    def __init__(self, channels: int, form: TransformerForm) -> None:
        super().__init__()
        hidden = int(channels * form.mlp_ratio)
        self.enter = ConvNormAct(channels, hidden, style=PLAIN)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)
        self.act = nn.ReLU6()
        self.leave = ConvNormAct(hidden, channels, style=PLAIN)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        return self.leave(self.act(self.depthwise(self.enter(x))))


class HighTransformer(nn.Module):
    """Blocks of x + attention(x), then x + mlp(x); no normalisation before, no positions."""

    def __init__(self, channels: int, form: TransformerForm) -> None:
        super().__init__()
        self.attention = nn.ModuleList(Attention(channels, form) for _ in range(form.depth))
        self.mlp = nn.ModuleList(Mlp(channels, form) for _ in range(form.depth))
        rates = torch.linspace(0, form.drop_path, form.depth).tolist()
        self.drop = nn.ModuleList(StochasticDepth(rate, "row") if rate else nn.Identity() for rate in rates)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> the same shape."""
        for attention, mlp, drop in zip(self.attention, self.mlp, self.drop, strict=True):
            x = x + drop(attention(x))
            x = x + drop(mlp(x))
        return x
