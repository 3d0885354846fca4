"""The neck in the style of YOLOv5: SPPF, then path aggregation whose merges are cross-stage partial blocks."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.csp import CspBlock
from cloverleaf.layers.spp import Sppf
from cloverleaf.layers.style import Activation, Style
from cloverleaf.necks.alignment import AlignableNeckSpec
from cloverleaf.necks.levels import doubling_levels, output_widths
from cloverleaf.necks.path_aggregation import PathAggregation
from cloverleaf.structures import FeatureSpec


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class C3PanSpec(AlignableNeckSpec):
    """Options of a `PathAggregation` of C3 blocks without residual connections; 1x1 convolutions narrow coarser maps.

    Attributes:
        width: multiplies the widths; results are rounded up to a multiple of 8.
        depth: bottlenecks of every block.
        finest: stride of the finest map that is read; 4 adds a level for small objects.
        channels: width of each output, finest first; that of the backbone's maps where None.
        activation: of every convolution.
    """

    type: Literal["c3-pan"] = "c3-pan"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    depth: Annotated[int, Field(ge=1, le=64)] = 1
    finest: Literal[4, 8] = 8
    channels: tuple[Annotated[int, Field(ge=1, le=16384)], ...] | None = None
    activation: Activation = "silu"

    def build(self, features: FeatureSpec) -> PathAggregation:
        """The module for a backbone's ``features``, freshly initialised.

        Raises:
            ConfigError: the backbone's strides do not double, stride 4 is wanted and not there, or widths do not fit.
        """
        style = Style(activation=self.activation)
        levels = doubling_levels(self.type, features, self.finest)
        widths = output_widths(self.channels, self.width, levels)
        neck = PathAggregation(
            levels, widths,
            pool=partial(Sppf, style=style),
            merge=partial(CspBlock, depth=self.depth, residual=False, style=style),
            shrink=partial(ConvNormAct, kernel=3, stride=2, style=style),
            narrow=partial(ConvNormAct, style=style),
        )  # fmt: skip
        return self.aligned(neck, neck.down_merge)
