"""The backbone of YOLOv7-tiny (arXiv 2207.02696 and its published implementation): a stem and four ELAN stages."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.elan import Elan, ElanForm
from cloverleaf.layers.style import Activation, Style, scale_width
from cloverleaf.structures import FeatureSpec


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ElanTinySpec:
    """Options of `ElanTiny`.

    Attributes:
        width: multiplies every width; results are rounded up to a multiple of 8.
        depth: 3x3 convolutions in the chain of each ELAN.
        activation: of every convolution.
    """

    type: Literal["elan-tiny"] = "elan-tiny"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    depth: Annotated[int, Field(ge=1, le=16)] = 2
    activation: Activation = "leaky_relu"

    def build(self) -> ElanTiny:
        """The module, freshly initialised."""
        return ElanTiny(self)


class ElanTiny(nn.Module):
    """Image to features of strides 8, 16 and 32.

    The stages carry the stride of their output in their names; from stride 8 on a stage is a 2x2 max-pool and an ELAN.
    """

    def __init__(self, spec: ElanTinySpec) -> None:
        super().__init__()
        style, form = Style(activation=spec.activation), ElanForm.every(spec.depth)
        stem, first, *outs = (scale_width(c, spec.width) for c in (32, 64, 64, 128, 256, 512))
        # An ELAN is half as wide inside as its output.
        hidden = [scale_width(c / 2, spec.width) for c in (64, 128, 256, 512)]
        self.features = FeatureSpec(channels=(outs[1], outs[2], outs[3]), strides=(8, 16, 32))
        self.stem = nn.Sequential(ConvNormAct(3, stem, 3, 2, style=style), ConvNormAct(stem, first, 3, 2, style=style))
        self.stage4 = Elan(first, hidden[0], outs[0], form=form, style=style)
        self.stage8 = _stage(outs[0], hidden[1], outs[1], form, style)
        self.stage16 = _stage(outs[1], hidden[2], outs[2], form, style)
        self.stage32 = _stage(outs[2], hidden[3], outs[3], form, style)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` -> maps of strides 8, 16, 32, finest first."""
        fine = self.stage8(self.stage4(self.stem(images)))
        middle = self.stage16(fine)
        return fine, middle, self.stage32(middle)


def _stage(in_channels: int, hidden: int, out_channels: int, form: ElanForm, style: Style) -> nn.Sequential:
    return nn.Sequential(nn.MaxPool2d(2), Elan(in_channels, hidden, out_channels, form=form, style=style))
