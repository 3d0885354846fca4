"""The neck of YOLOv7-tiny: pyramid pooling, then a path aggregation network whose merges are ELANs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cloverleaf.errors import ConfigError
from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.elan import Elan, ElanForm
from cloverleaf.layers.spp import CspSpp
from cloverleaf.layers.style import Activation, Style, scale_width
from cloverleaf.structures import FeatureSpec


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ElanPanSpec:
    """Options of `ElanPan`.

    Attributes:
        width: multiplies the widths, which are half of the backbone's at 1.0; rounded up to a multiple of 8.
        depth: 3x3 convolutions in the chain of each ELAN.
        activation: of every convolution.
    """

    type: Literal["elan-pan"] = "elan-pan"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    depth: Annotated[int, Field(ge=1, le=16)] = 2
    activation: Activation = "leaky_relu"

    def build(self, features: FeatureSpec) -> ElanPan:
        """The module for a backbone's ``features``, freshly initialised."""
        return ElanPan(self, features)


class ElanPan(nn.Module):
    """Features in, features of the same strides out; each level has seen all others.

    Top-down: the coarser map is narrowed, enlarged and merged with a lateral 1x1 of the finer one. Bottom-up: a
    stride-2 convolution of the finer map is merged with the map of the way down.
    """

    def __init__(self, spec: ElanPanSpec, features: FeatureSpec) -> None:
        super().__init__()
        if len(features) < 2 or any(b != 2 * a for a, b in zip(features.strides, features.strides[1:], strict=False)):
            raise ConfigError(
                "neck 'elan-pan' does not fit its backbone",
                f"it joins two or more levels whose strides double, got strides {features.strides}",
                "choose a backbone whose strides double from level to level",
            )
        style, form = Style(activation=spec.activation), ElanForm.every(spec.depth)
        widths = [scale_width(c / 2, spec.width) for c in features.channels]
        hidden = [scale_width(c / 4, spec.width) for c in features.channels]
        self.features = FeatureSpec(channels=tuple(widths), strides=features.strides)
        self.spp = CspSpp(features.channels[-1], widths[-1], style=style)
        # Index i of the lists below joins level i (finer) with level i + 1 (coarser).
        steps = range(len(widths) - 1)
        self.narrow = nn.ModuleList(ConvNormAct(widths[i + 1], widths[i], style=style) for i in steps)
        self.lateral = nn.ModuleList(ConvNormAct(features.channels[i], widths[i], style=style) for i in steps)
        self.down_merge = nn.ModuleList(
            Elan(2 * widths[i], hidden[i], widths[i], form=form, style=style) for i in steps
        )
        self.reduce = nn.ModuleList(ConvNormAct(widths[i], widths[i + 1], 3, 2, style=style) for i in steps)
        self.up_merge = nn.ModuleList(
            Elan(2 * widths[i + 1], hidden[i + 1], widths[i + 1], form=form, style=style) for i in steps
        )
        self.enlarge = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps ``(B, C_l, H_l, W_l)``, finest first -> maps of ``self.features``, finest first."""
        pyramid = [self.spp(features[-1])]  # grows towards finer levels at its front
        for i in reversed(range(len(self.lateral))):
            coarse = self.enlarge(self.narrow[i](pyramid[0]))
            pyramid.insert(0, self.down_merge[i](torch.cat((self.lateral[i](features[i]), coarse), 1)))
        outputs = [pyramid[0]]
        for i, (reduce, merge) in enumerate(zip(self.reduce, self.up_merge, strict=True)):
            outputs.append(merge(torch.cat((reduce(outputs[-1]), pyramid[i + 1]), 1)))
        return tuple(outputs)
