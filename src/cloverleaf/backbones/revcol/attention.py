"""Multi-scale attention as fusion: every map that a level may read, weighted by channel and position."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cloverleaf.backbones.revcol.fusion import Fusion, Projection, Up
from cloverleaf.backbones.revcol.weighted_fusion import ChannelLogits, FromZero, weighted_sum


class Down(Projection):
    """A finer map at the width and size of a coarser one: the mean of every cell first, then 1x1 convolution and norm.

    Args:
        coming: width of the finer map.
        channels: width of the coarser one.
        times: cells of the finer map along the side of a coarser one.
    """

    def __init__(self, coming: int, channels: int, times: int) -> None:
        super().__init__(coming, channels)
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        """(B, C', h, w) -> (B, C, h // times, w // times): the grid of as many convolutions that halve."""
        merged: Tensor = self.norm(self.project(F.avg_pool2d(x, self.times)))
        return merged


class AttentionFusion(Fusion):
    """The branches of `Fusion` under attention, and gated in beside them every other map that a level may read.

    With a logit e_s = channel logit + 1x1 convolution of p_s for every source p_s at the level's width and size:
    m * sum_s softmax_s(e_s) p_s over the m branches, plus sum_s lambda_s sigmoid(e_s) p_s over the added sources.
    Logits and lambda start at zero, and this is the plain sum then. Nothing is read that the inverse does not have:
    finer maps of this column, coarser ones of the left. Not published (docs/fidelity.md, entry 156).

    Args:
        below, channels, higher, halve: as `Fusion`.
        finer: width of each further map of this column that is read, by how many levels it lies below this one (2 or
            more).
        further: width of each further map of the left column that is read, by its place above this level.
    """

    def __init__(
        self,
        below: int,
        channels: int,
        higher: dict[int, int],
        *,
        halve: bool,
        finer: dict[int, int],
        further: dict[int, int],
    ) -> None:
        super().__init__(below, channels, higher, halve=halve)
        self.places, self.distances = tuple(further), tuple(finer)
        self.added_ups = nn.ModuleList(Up(coming, channels) for coming in further.values())
        self.added_downs = nn.ModuleList(Down(coming, channels, 2**distance) for distance, coming in finer.items())
        branches, added = 1 + len(higher), len(further) + len(finer)
        weighed = added + (branches if branches > 1 else 0)  # a single branch has no rival
        self.channel_logits = ChannelLogits(channels, branches + added, weighed) if weighed else None
        self.position_logits = nn.ModuleList(FromZero(channels, 1, bias=False) for _ in range(weighed))
        self.strengths = nn.ParameterList(torch.zeros(channels) for _ in range(added))

    def forward(self, stem: Tensor, own: Sequence[Tensor], higher: Sequence[Tensor]) -> Tensor:
        """As `Fusion.forward`."""
        branches = self.branches(stem, own, higher)
        if self.channel_logits is None:
            return branches[0]
        added = self._added(own, higher, branches[0])
        logits = self._logits([*branches, *added])
        gates = logits[len(logits) - len(added) :]
        merged = weighted_sum(branches, logits[: len(branches)]) if len(branches) > 1 else branches[0]
        for strength, gate, source in zip(self.strengths, gates, added, strict=True):
            merged = merged + strength[:, None, None] * gate.sigmoid() * source
        return merged

    def _logits(self, sources: Sequence[Tensor]) -> list[Tensor]:
        """Of the sources that are weighed, each (B, C, H, W)."""
        assert self.channel_logits is not None
        of_channels = self.channel_logits(sources)
        weighed = sources[len(sources) - len(of_channels) :]
        parts = zip(of_channels, self.position_logits, weighed, strict=True)
        return [of_channel + position(source) for of_channel, position, source in parts]

    def _added(self, own: Sequence[Tensor], higher: Sequence[Tensor], like: Tensor) -> list[Tensor]:
        size_hw = (like.shape[2], like.shape[3])
        ups = [up(higher[place], size_hw) for place, up in zip(self.places, self.added_ups, strict=True)]
        return [*ups, *(down(own[-far]) for far, down in zip(self.distances, self.added_downs, strict=True))]
