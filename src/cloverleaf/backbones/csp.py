"""A small backbone of cross-stage partial blocks with residual bottlenecks (after CSPDarknet, arXiv 1911.11929)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from cloverleaf.backbones.stages import Stages
from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.csp import CspBlock
from cloverleaf.layers.planned import ConvKind
from cloverleaf.layers.style import Activation, Style, scale_width


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CspTinySpec:
    """Options of `CspTiny`.

    Attributes:
        width: multiplies every width; results are rounded up to a multiple of 8.
        depths: residual bottlenecks of each stage, from stride 4 on.
        conv: kind of the bottlenecks' 3x3 convolutions: plain, RepConv, or RepConv without identity, because a residual
            connection follows.
        activation: of every convolution.
        finest: stride of the finest map that is given; 4 suits necks that gather from it.
    """

    type: Literal["csp-tiny"] = "csp-tiny"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    depths: tuple[
        Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)],
        Annotated[int, Field(ge=1)],
    ] = (1, 2, 2, 1)  # fmt: skip
    conv: ConvKind = "conv"
    activation: Activation = "leaky_relu"
    finest: Literal[4, 8] = 8

    def build(self) -> CspTiny:
        """The module, freshly initialised."""
        return CspTiny(self)


class CspTiny(Stages):
    """Image to features of strides (4,) 8, 16 and 32; a stage is a stride-2 convolution and a `CspBlock`."""

    def __init__(self, spec: CspTinySpec) -> None:
        style = Style(activation=spec.activation)
        stem, *outs = (scale_width(c, spec.width) for c in (32, 64, 128, 256, 512))
        stages = [
            nn.Sequential(
                ConvNormAct(narrow, wide, 3, 2, style=style), CspBlock(wide, wide, depth, conv=spec.conv, style=style)
            )
            for narrow, wide, depth in zip((stem, *outs[:-1]), outs, spec.depths, strict=True)
        ]
        super().__init__(ConvNormAct(3, stem, 3, 2, style=style), stages, outs, finest=spec.finest)
