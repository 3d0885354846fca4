"""Path aggregation by concatenation (arXiv 1803.01534): the skeleton of the YOLOv5-, v8- and v9-style necks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from cloverleaf.structures import FeatureSpec

MakeModule = Callable[[int, int], nn.Module]  # widths of input and output -> a module


class PathAggregation(nn.Module):
    """Pyramid pooling, coarse to fine by concatenation, then fine to coarse; each level has seen all others.

    Args:
        levels: what is given, strides doubling.
        widths: of the outputs, finest first.
        pool: for the coarsest map, from its width to that of the output.
        merge: of a concatenation.
        shrink: a map to half its size.
        narrow: before a coarser map is enlarged, to the width of the finer level; maps are enlarged as they are, and
            join the way back as they are, where None.
    """

    def __init__(
        self, levels: FeatureSpec, widths: tuple[int, ...], *, pool: MakeModule, merge: MakeModule, shrink: MakeModule,
        narrow: MakeModule | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.features = FeatureSpec(channels=widths, strides=levels.strides)
        self.pool = pool(levels.channels[-1], widths[-1])
        steps = range(len(widths) - 1)
        # Index i of the lists below joins level i (finer) with level i + 1 (coarser).
        passed = [widths[i] if narrow else widths[i + 1] for i in steps]
        self.narrow = nn.ModuleList(narrow(widths[i + 1], widths[i]) if narrow else nn.Identity() for i in steps)
        self.enlarge = nn.Upsample(scale_factor=2, mode="nearest")
        self.down_merge = nn.ModuleList(merge(passed[i] + levels.channels[i], widths[i]) for i in steps)
        self.shrink = nn.ModuleList(shrink(widths[i], widths[i]) for i in steps)
        self.up_merge = nn.ModuleList(merge(widths[i] + passed[i], widths[i + 1]) for i in steps)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps ``(B, C_l, H_l, W_l)``, finest first -> maps of ``self.features``, finest first."""
        levels = features[-len(self.features) :]
        current = self.pool(levels[-1])
        passed: list[Tensor] = []
        for i in reversed(range(len(self.narrow))):
            passed.insert(0, self.narrow[i](current))
            current = self.down_merge[i](torch.cat((self.enlarge(passed[0]), levels[i]), 1))
        outputs = [current]
        for i, merge in enumerate(self.up_merge):
            outputs.append(merge(torch.cat((self.shrink[i](outputs[-1]), passed[i]), 1)))
        return tuple(outputs)
