"""Fusion with learned weights: how much each branch counts is decided per channel, from what the branches hold."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cloverleaf.backbones.revcol.fusion import Fusion

_REDUCTION, _LEAST_HIDDEN = 4, 8


class FromZero(nn.Module):
    """A 1x1 convolution that starts at zero, so that what it decides is without effect until it has learned.

    Not an ``nn.Conv2d``, to which `layers.convnext.initialise` would give random weights.
    """

    def __init__(self, coming: int, channels: int, *, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, coming, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W)."""
        return F.conv2d(x, self.weight, self.bias)


class ChannelLogits(nn.Module):
    """A logit for every channel of every source that is weighed: a perceptron on the means of all sources.

    Args:
        channels: C of each source.
        sources: S.
        weighed: how many of them are.
    """

    def __init__(self, channels: int, sources: int, weighed: int) -> None:
        super().__init__()
        hidden = max(channels // _REDUCTION, _LEAST_HIDDEN)
        self.weighed = weighed
        self.squeeze = nn.Conv2d(sources * channels, hidden, 1)
        self.excite = FromZero(hidden, weighed * channels)

    def forward(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """S maps (B, C, H, W) -> logits (B, C, 1, 1) of those that are weighed."""
        means = torch.cat([source.mean((2, 3), keepdim=True) for source in sources], 1)
        return list(self.excite(F.gelu(self.squeeze(means))).chunk(self.weighed, 1))


class WeightedFusion(Fusion):
    """m * sum_s w_s p_s, where w is a softmax over the m branches p, one for every image and channel.

    At the start every weight is 1 / m, and this is the plain sum. A level with a single branch has nothing to weigh.
    The weights depend on what the fusion may read only, so that the unit stays exactly reversible. Not published
    (docs/fidelity.md, entry 155).

    Args: as `Fusion`.
    """

    def __init__(self, below: int, channels: int, higher: dict[int, int], *, halve: bool) -> None:
        super().__init__(below, channels, higher, halve=halve)
        self.logits = ChannelLogits(channels, 1 + len(higher), 1 + len(higher)) if higher else None

    def forward(self, stem: Tensor, own: Sequence[Tensor], higher: Sequence[Tensor]) -> Tensor:
        """As `Fusion.forward`."""
        branches = self.branches(stem, own, higher)
        return branches[0] if self.logits is None else weighted_sum(branches, self.logits(branches))


def weighted_sum(branches: Sequence[Tensor], logits: Sequence[Tensor]) -> Tensor:
    """m * sum_s softmax_s(logits) * branches, exactly the plain sum of `Fusion` where the logits are equal.

    Args:
        branches: m maps (B, C, H, W).
        logits: m of shapes that broadcast to theirs.
    """
    weights = len(branches) * torch.stack(list(logits)).softmax(0)
    merged = weights[0] * branches[0]
    for weight, branch in zip(weights[1:], branches[1:], strict=True):
        merged = weight * branch + merged
    return merged
