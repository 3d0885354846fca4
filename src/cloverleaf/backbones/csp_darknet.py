"""Backbones in the style of YOLOv5 and YOLOv8: stages of cross-stage partial blocks (arXiv 1911.11929)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from cloverleaf.backbones.stages import Stages
from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.csp import CspBlock, CspChain
from cloverleaf.layers.style import Activation, Style, scale_width

Width = Annotated[int, Field(ge=1, le=16384)]
_DEPTHS = {"c3": (3, 6, 9, 3), "c2f": (3, 6, 6, 3)}  # bottlenecks of the stages, at depth 1


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CspDarknetSpec:
    """Options of a backbone of strides 4, 8, 16 and 32; the defaults are those of the smallest YOLOv8.

    Attributes:
        block: of the stages: `c3`, as in YOLOv5, with 3, 6, 9, 3 bottlenecks, or `c2f`, as in YOLOv8, with 3, 6, 6, 3.
        width: multiplies every width; results are rounded up to a multiple of 8.
        depth: multiplies the numbers of bottlenecks.
        channels: of the stem and of the stages.
        activation: of every convolution.
    """

    type: Literal["csp-darknet"] = "csp-darknet"
    block: Literal["c3", "c2f"] = "c2f"
    width: Annotated[float, Field(gt=0, le=8)] = 0.25
    depth: Annotated[float, Field(gt=0, le=8)] = 0.33
    channels: tuple[Width, Width, Width, Width, Width] = (64, 128, 256, 512, 1024)
    activation: Activation = "silu"

    def build(self) -> Stages:
        """The module, freshly initialised."""
        style = Style(activation=self.activation)
        stem, *outs = (scale_width(c, self.width) for c in self.channels)
        block = CspBlock if self.block == "c3" else CspChain
        stages = [
            nn.Sequential(
                ConvNormAct(before, after, 3, 2, style=style),
                block(after, after, max(round(count * self.depth), 1), style=style),
            )
            for before, after, count in zip((stem, *outs[:-1]), outs, _DEPTHS[self.block], strict=True)
        ]
        return Stages(ConvNormAct(3, stem, 3, 2, style=style), stages, outs)
