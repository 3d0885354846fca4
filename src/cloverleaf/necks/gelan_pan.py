"""The neck in the style of YOLOv9 (arXiv 2402.13616): SPPELAN, then path aggregation whose merges are GELANs."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from cloverleaf.layers.downsample import Halving, halving
from cloverleaf.layers.gelan import Gelan
from cloverleaf.layers.spp import Sppf
from cloverleaf.layers.style import Activation, Style
from cloverleaf.necks.alignment import AlignableNeckSpec
from cloverleaf.necks.levels import doubling_levels, output_widths
from cloverleaf.necks.path_aggregation import PathAggregation
from cloverleaf.structures import FeatureSpec


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class GelanPanSpec(AlignableNeckSpec):
    """Options of a `PathAggregation` of GELANs with re-parameterisable convolutions.

    Attributes:
        width: multiplies the widths; results are rounded up to a multiple of 8.
        depth: bottlenecks of every block.
        finest: stride of the finest map that is read; 4 adds a level for small objects.
        channels: width of each output, finest first; that of the backbone's maps where None.
        downsample: a 3x3 convolution of stride 2, or the published convolution and pool on one half each.
        activation: of every convolution.
    """

    type: Literal["gelan-pan"] = "gelan-pan"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    depth: Annotated[int, Field(ge=1, le=64)] = 3
    finest: Literal[4, 8] = 8
    channels: tuple[Annotated[int, Field(ge=1, le=16384)], ...] | None = None
    downsample: Halving = "split"
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
            pool=partial(Sppf, width=widths[-1] // 2, style=style),
            merge=partial(Gelan, depth=self.depth, style=style),
            shrink=partial(halving, self.downsample, style=style),
        )  # fmt: skip
        return self.aligned(neck, neck.down_merge)
