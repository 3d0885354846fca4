"""Path aggregation (arXiv 1803.01534) whose maps of the backbone come in by lateral 1x1 convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cloverleaf.necks.path_aggregation import MakeModule
from cloverleaf.structures import FeatureSpec


class LateralAggregation(nn.Module):
    """Features in, features of the same strides out; each level has seen all others.

    Top-down: the coarser map is narrowed, enlarged and merged with a lateral 1x1 of the finer one. Bottom-up: the
    halved finer map is merged with the map of the way down.

    Args:
        levels: what is given, strides doubling.
        widths: of the outputs, finest first.
        pool: for the coarsest map, from its width to that of the output.
        merge: of two maps of a level, concatenated: its number, finest first, to a module that keeps the level's width.
        shrink: a map to half its size and the width of the coarser level.
        narrow: to the width of a finer level, of the coarser map before it is enlarged and of the lateral one.
    """

    def __init__(
        self, levels: FeatureSpec, widths: tuple[int, ...], *, pool: MakeModule, merge: Callable[[int], nn.Module],
        shrink: MakeModule, narrow: MakeModule,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features = FeatureSpec(channels=widths, strides=levels.strides)
        self.spp = pool(levels.channels[-1], widths[-1])
        # Index i of the lists below joins level i (finer) with level i + 1 (coarser).
        steps = range(len(widths) - 1)
        self.narrow = nn.ModuleList(narrow(widths[i + 1], widths[i]) for i in steps)
        self.lateral = nn.ModuleList(narrow(levels.channels[i], widths[i]) for i in steps)
        self.down_merge = nn.ModuleList(merge(i) for i in steps)
        self.reduce = nn.ModuleList(shrink(widths[i], widths[i + 1]) for i in steps)
        self.up_merge = nn.ModuleList(merge(i + 1) for i in steps)
        self.enlarge = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps ``(B, C_l, H_l, W_l)``, finest first -> maps of ``self.features``, finest first."""
        features = features[-len(self.features) :]
        pyramid = [self.spp(features[-1])]  # grows towards finer levels at its front
        for i in reversed(range(len(self.lateral))):
            pyramid.insert(0, self.down_merge[i](self.met(i, features[i], pyramid[0])))
        return self.way_up(pyramid)

    def met(self, i: int, feature: Tensor, coarser: Tensor) -> Tensor:
        """What is merged on the way down: level ``i`` of the input, and the coarser map at its size."""
        return torch.cat((self.lateral[i](feature), self.enlarge(self.narrow[i](coarser))), 1)

    def way_up(self, pyramid: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The outputs, of the maps of the way down; both finest first."""
        outputs = [pyramid[0]]
        for i, (reduce, merge) in enumerate(zip(self.reduce, self.up_merge, strict=True)):
            outputs.append(merge(torch.cat((reduce(outputs[-1]), pyramid[i + 1]), 1)))
        return tuple(outputs)
