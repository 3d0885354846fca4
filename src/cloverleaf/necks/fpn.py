"""Feature pyramid network: lateral connections and a top-down path (arXiv 1612.03144)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor
from torchvision.ops import FeaturePyramidNetwork

from cloverleaf.necks.alignment import AlignableNeckSpec
from cloverleaf.structures import FeatureSpec


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FpnSpec(AlignableNeckSpec):
    """Options of `Fpn`.

    Attributes:
        width: channels of every output; 256 as published.
    """

    type: Literal["fpn"] = "fpn"
    width: Annotated[int, Field(ge=1, le=16384)] = 256

    def build(self, features: FeatureSpec) -> Fpn:
        """The module for a backbone's ``features``, freshly initialised."""
        neck = Fpn(self, features)
        return self.aligned(neck, neck.layer_blocks[:-1])


class Fpn(FeaturePyramidNetwork):
    """As many maps as it is given, of the same strides and of one width.

    A 1x1 convolution brings each map to that width, the next coarser result is added to it, repeated to its size
    (nearest neighbour), and a 3x3 convolution gives the output; there is neither norm nor activation (section 3 of the
    paper). torchvision's module with sequences in place of dictionaries.

    Attributes:
        features: what it returns.
    """

    def __init__(self, spec: FpnSpec, features: FeatureSpec) -> None:
        super().__init__(list(features.channels), spec.width)
        self.features = FeatureSpec((spec.width,) * len(features), features.strides)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """``(B, C_l, H_l, W_l)`` per level, finest first -> ``(B, width, H_l, W_l)`` per level."""
        named = OrderedDict((str(level), x) for level, x in enumerate(maps))
        return tuple(super().forward(named).values())
