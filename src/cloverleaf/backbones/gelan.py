"""The backbone in the style of YOLOv9 (arXiv 2402.13616, section 4.2): stages of GELANs."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from cloverleaf.backbones.stages import Stages
from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.downsample import Halving, halving
from cloverleaf.layers.gelan import Gelan
from cloverleaf.layers.style import Activation, Style, scale_width

Width = Annotated[int, Field(ge=1, le=16384)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class GelanSpec:
    """Options of a backbone of strides 4, 8, 16 and 32.

    Attributes:
        width: multiplies every width; results are rounded up to a multiple of 8.
        depth: bottlenecks of each of the two blocks of a GELAN.
        channels: of the stem and of the stages.
        downsample: before the stages from stride 8 on: a 3x3 convolution of stride 2, or the published convolution and
            pool on one half each.
        activation: of every convolution.
    """

    type: Literal["gelan"] = "gelan"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    depth: Annotated[int, Field(ge=1, le=64)] = 3
    channels: tuple[Width, Width, Width, Width, Width] = (16, 32, 64, 96, 128)
    downsample: Halving = "split"
    activation: Activation = "silu"

    def build(self) -> Stages:
        """The module, freshly initialised."""
        style = Style(activation=self.activation)
        stem, *outs = (scale_width(c, self.width) for c in self.channels)
        down: list[nn.Module] = [ConvNormAct(stem, outs[0], 3, 2, style=style)]
        down += [halving(self.downsample, before, after, style=style) for before, after in pairwise(outs)]
        stages = [
            nn.Sequential(halve, Gelan(out, out, self.depth, style=style))
            for halve, out in zip(down, outs, strict=True)
        ]
        return Stages(ConvNormAct(3, stem, 3, 2, style=style), stages, outs)
