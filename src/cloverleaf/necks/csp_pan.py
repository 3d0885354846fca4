"""The neck of Scaled-YOLOv4 (arXiv 2011.08036) and YOLOR (2105.04206): path aggregation with reversed CSP blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.csp import ReversedCspBlock
from cloverleaf.layers.csp_shared_norm import SharedNormReversedCspBlock, SharedNormSpp
from cloverleaf.layers.downsample import CspHalving, halving
from cloverleaf.layers.spp import SppCspc
from cloverleaf.layers.style import Activation, NormEps, Style, scale_width
from cloverleaf.necks.alignment import AlignableNeckSpec
from cloverleaf.necks.lateral_aggregation import LateralAggregation
from cloverleaf.necks.levels import check_widths, doubling_levels
from cloverleaf.structures import FeatureSpec

Width = Annotated[int, Field(ge=1, le=16384)]
Depth = Annotated[int, Field(ge=1, le=64)]
Norm = Literal["separate", "shared"]

# How the paths of a block are normalised -> merge(in_channels, out_channels, depth, style=...) and
# pool(in_channels, out_channels, style=..., mixes=..., largest_first=...).
MERGES: Mapping[Norm, Callable[..., nn.Module]] = {"separate": ReversedCspBlock, "shared": SharedNormReversedCspBlock}
POOLS: Mapping[Norm, Callable[..., nn.Module]] = {"separate": SppCspc, "shared": SharedNormSpp}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CspPanSpec(AlignableNeckSpec):
    """Options of a `LateralAggregation` of CSP blocks; the defaults are small enough to train on a CPU.

    Attributes:
        width: multiplies the widths; results are rounded up to a multiple of 8.
        channels: width of each output, finest first; half of the backbone's where None.
        depth: pairs of a 1x1 and a 3x3 convolution in the block of each merge.
        norm: `separate`: each path of a block is normalised by itself; `shared`: both by one norm after they meet.
        spp_mixes: pairs of a 1x1 and a 3x3 convolution after the pyramid pooling.
        spp_order: in which its maps are concatenated: the largest window first or the map itself first.
        downsample: on the way to coarser maps: `conv`: 3x3 of stride 2; `pooled-csp`: DownC.
        activation: of every convolution.
        norm_eps: epsilon of every BatchNorm.
        finest: stride of the finest map that is read.
    """

    type: Literal["csp-pan"] = "csp-pan"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    channels: tuple[Width, ...] | None = None
    depth: Depth = 1
    norm: Norm = "separate"
    spp_mixes: Annotated[int, Field(ge=1, le=16)] = 1
    spp_order: Literal["largest-first", "itself-first"] = "largest-first"
    downsample: CspHalving = "conv"
    activation: Activation = "silu"
    norm_eps: NormEps = 1e-3
    finest: Literal[4, 8] = 8

    def build(self, features: FeatureSpec) -> LateralAggregation:
        """The module for a backbone's ``features``, freshly initialised.

        Raises:
            ConfigError: the backbone's strides do not double, stride 4 is wanted and not there, or widths do not fit.
        """
        style = Style(activation=self.activation, norm_eps=self.norm_eps)
        levels = doubling_levels(self.type, features, self.finest)
        check_widths("channels", self.channels, levels)
        widths = tuple(scale_width(c, self.width) for c in self.channels or [c / 2 for c in levels.channels])
        neck = LateralAggregation(
            levels, widths,
            pool=partial(
                POOLS[self.norm], style=style, mixes=self.spp_mixes, largest_first=self.spp_order == "largest-first"
            ),
            merge=lambda i: MERGES[self.norm](2 * widths[i], widths[i], depth=self.depth, style=style),
            shrink=partial(halving, self.downsample, style=style),
            narrow=partial(ConvNormAct, style=style),
        )  # fmt: skip
        return self.aligned(neck, neck.down_merge)
