"""A small backbone of cross-stage partial blocks with residual bottlenecks (after CSPDarknet, arXiv 1911.11929)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.csp import CspBlock
from cloverleaf.layers.planned import ConvKind
from cloverleaf.layers.style import Activation, Style, scale_width
from cloverleaf.structures import FeatureSpec


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CspTinySpec:
    """Options of `CspTiny`.

    Attributes:
        width: multiplies every width; results are rounded up to a multiple of 8.
        depths: residual bottlenecks of each stage, from stride 4 on.
        conv: kind of the bottlenecks' 3x3 convolutions: plain, RepConv, or RepConv without identity, because a residual
            connection follows.
        activation: of every convolution.
    """

    type: Literal["csp-tiny"] = "csp-tiny"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    depths: tuple[
        Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)],
        Annotated[int, Field(ge=1)],
    ] = (1, 2, 2, 1)  # fmt: skip
    conv: ConvKind = "conv"
    activation: Activation = "leaky_relu"

    def build(self) -> CspTiny:
        """The module, freshly initialised."""
        return CspTiny(self)


class CspTiny(nn.Module):
    """Image to features of strides 8, 16 and 32; a stage is a stride-2 convolution and a `CspBlock`."""

    def __init__(self, spec: CspTinySpec) -> None:
        super().__init__()
        style = Style(activation=spec.activation)
        stem, *outs = (scale_width(c, spec.width) for c in (32, 64, 128, 256, 512))
        self.features = FeatureSpec(channels=(outs[1], outs[2], outs[3]), strides=(8, 16, 32))
        self.stem = ConvNormAct(3, stem, 3, 2, style=style)
        self.stage4, self.stage8, self.stage16, self.stage32 = (
            nn.Sequential(
                ConvNormAct(narrow, wide, 3, 2, style=style), CspBlock(wide, wide, depth, conv=spec.conv, style=style)
            )
            for narrow, wide, depth in zip((stem, *outs[:-1]), outs, spec.depths, strict=True)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` -> maps of strides 8, 16, 32, finest first."""
        fine = self.stage8(self.stage4(self.stem(images)))
        middle = self.stage16(fine)
        return fine, middle, self.stage32(middle)
