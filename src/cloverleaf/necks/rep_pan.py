"""RepPAN: the path aggregation network of re-parameterisable blocks (arXiv 2209.02976, section 2.1; 1803.01534)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.rep_block import BlockKind, Body, body
from cloverleaf.layers.style import Style, scale_width
from cloverleaf.necks.alignment import AlignableNeckSpec
from cloverleaf.necks.levels import check_widths, doubling_levels
from cloverleaf.structures import FeatureSpec

_STYLE = Style(activation="relu")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class RepPanSpec(AlignableNeckSpec):
    """Options of `RepPan`; widths and blocks are those of the gather-and-distribute neck, to compare both.

    Attributes:
        width: multiplies the widths; results are rounded up to a multiple of 8.
        finest: stride of the finest map that is read.
        channels: width of each output, finest first; half of the backbone's where None.
        depth: blocks after every concatenation.
        body: how they are put together: in a row, or as a cross-stage partial block.
        expansion: width inside such a block over that of its output.
        block: kind of all blocks.
    """

    type: Literal["rep-pan"] = "rep-pan"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    finest: Literal[4, 8] = 8
    channels: tuple[Annotated[int, Field(ge=1, le=16384)], ...] | None = None
    depth: Annotated[int, Field(ge=1, le=64)] = 4
    body: Body = "chain"
    expansion: Annotated[float, Field(gt=0, le=2)] = 0.5
    block: BlockKind = "rep"

    def build(self, features: FeatureSpec) -> RepPan:
        """The module for a backbone's ``features``, freshly initialised.

        Raises:
            ConfigError: the strides do not double from level to level, or the given widths do not fit.
        """
        neck = RepPan(self, features)
        return self.aligned(neck, neck.down_merge)


class RepPan(nn.Module):
    """Features in, features of the same strides out: coarse to fine by concatenation, then fine to coarse."""

    def __init__(self, spec: RepPanSpec, features: FeatureSpec) -> None:
        super().__init__()
        levels = doubling_levels(spec.type, features, spec.finest)
        widths = _widths(spec, levels)
        self.features = FeatureSpec(channels=widths, strides=levels.strides)
        steps = range(len(widths) - 1)
        # Index i of the lists below joins level i (finer) with level i + 1 (coarser).
        entering = [*widths[:-1], levels.channels[-1]]
        self.narrow = nn.ModuleList(ConvNormAct(entering[i + 1], widths[i], style=_STYLE) for i in steps)
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(widths[i], widths[i], 2, 2) for i in steps)
        self.down_merge = nn.ModuleList(_merge(spec, widths[i] + levels.channels[i], widths[i]) for i in steps)
        self.shrink = nn.ModuleList(ConvNormAct(widths[i], widths[i], 3, 2, style=_STYLE) for i in steps)
        self.up_merge = nn.ModuleList(_merge(spec, 2 * widths[i], widths[i + 1]) for i in steps)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps ``(B, C_l, H_l, W_l)``, finest first -> maps of ``self.features``, finest first."""
        levels = features[-len(self.features) :]
        current = levels[-1]
        narrowed: list[Tensor] = []
        for i in reversed(range(len(self.narrow))):
            narrowed.insert(0, self.narrow[i](current))
            current = self.down_merge[i](torch.cat((self.enlarge[i](narrowed[0]), levels[i]), 1))
        outputs = [current]
        for i, merge in enumerate(self.up_merge):
            outputs.append(merge(torch.cat((self.shrink[i](outputs[-1]), narrowed[i]), 1)))
        return tuple(outputs)


def _merge(spec: RepPanSpec, in_channels: int, out_channels: int) -> nn.Sequential:
    """A 1x1 convolution to the width of the level, then the blocks."""
    return nn.Sequential(
        ConvNormAct(in_channels, out_channels, style=_STYLE),
        body(spec.body, out_channels, spec.depth, expansion=spec.expansion, kind=spec.block),
    )


def _widths(spec: RepPanSpec, levels: FeatureSpec) -> tuple[int, ...]:
    check_widths("channels", spec.channels, levels)
    return tuple(scale_width(c, spec.width) for c in spec.channels or [c / 2 for c in levels.channels])
