"""The backbones of YOLOv7 (arXiv 2207.02696 and its published implementation): a stem and stages of ELANs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cloverleaf.errors import ConfigError
from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.downsample import PooledDown, SpaceToDepth
from cloverleaf.layers.elan import ElanForm, Taken, build_elan
from cloverleaf.layers.planned import ConvKind
from cloverleaf.layers.style import Activation, Style, scale_width
from cloverleaf.structures import FeatureSpec

Width = Annotated[int, Field(ge=1, le=16384)]
Depth = Annotated[int, Field(ge=1, le=16)]
Factor = Annotated[float, Field(gt=0, le=8)]
Downsample = Literal["pool", "pooled-conv", "conv", "pooled-csp"]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ElanSpec:
    """Options of `ElanBackbone`; the defaults are YOLOv7's.

    Attributes:
        width: multiplies every width; results are rounded up to a multiple of 8.
        stem: `conv`: 3x3 convolutions of strides 1, 2, 1, 2; `small`: of strides 2, 2; `space-to-depth`: ReOrg and one
            convolution, at stride 2.
        stem_channels: width of each convolution of the stem.
        hidden: computational width of each ELAN, from stride 4 on.
        channels: width of each transition, that is of each stage's output, from stride 4 on.
        depth: 3x3 convolutions in the chain of each ELAN.
        taken: which outputs of a chain are concatenated.
        downsample: before each stage from stride 8 on (from stride 4 on after a `space-to-depth` stem): `pool`: 2x2
            max-pool; `pooled-conv`: YOLOv7's transition; `conv`: 3x3 of stride 2; `pooled-csp`: DownC.
        groups: above 1 each ELAN becomes an E-ELAN of that cardinality.
        conv: kind of the chains' convolutions: plain, RepConv, or RepConv without identity before a concatenation.
        activation: of every convolution.
        finest: stride of the finest map that is given; 4 suits necks that gather from it.
    """

    type: Literal["elan"] = "elan"
    width: Factor = 1.0
    stem: Literal["conv", "small", "space-to-depth"] = "conv"
    stem_channels: tuple[Width, ...] = (32, 64, 64, 128)
    hidden: tuple[Width, ...] = (64, 128, 256, 256)
    channels: tuple[Width, ...] = (256, 512, 1024, 1024)
    depth: Depth = 4
    taken: Taken = "every-second"
    downsample: Downsample = "pooled-conv"
    groups: Annotated[int, Field(ge=1, le=8)] = 1
    conv: ConvKind = "conv"
    activation: Activation = "silu"
    finest: Literal[4, 8] = 8

    def build(self) -> ElanBackbone:
        """The module, freshly initialised."""
        return ElanBackbone(self)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ElanTinySpec:
    """Options of the backbone of YOLOv7-tiny: an `ElanBackbone` of shallow ELANs between max-pools.

    Attributes:
        width: multiplies every width; results are rounded up to a multiple of 8.
        depth: 3x3 convolutions in the chain of each ELAN.
        activation: of every convolution.
        groups, conv, finest: as in `ElanSpec`.
    """

    type: Literal["elan-tiny"] = "elan-tiny"
    width: Factor = 1.0
    depth: Depth = 2
    groups: Annotated[int, Field(ge=1, le=8)] = 1
    conv: ConvKind = "conv"
    activation: Activation = "leaky_relu"
    finest: Literal[4, 8] = 8

    def resolved(self) -> ElanSpec:
        """The same backbone in all its options."""
        return ElanSpec(
            width=self.width, stem="small", stem_channels=(32, 64), hidden=(32, 64, 128, 256),
            channels=(64, 128, 256, 512), depth=self.depth, taken="every", downsample="pool", groups=self.groups,
            conv=self.conv, activation=self.activation, finest=self.finest,
        )  # fmt: skip

    def build(self) -> ElanBackbone:
        """The module, freshly initialised."""
        return ElanBackbone(self.resolved())


class ElanBackbone(nn.Module):
    """Image to features of stride 4 or 8 and coarser.

    The stages carry the stride of their output in their names.
    """

    def __init__(self, spec: ElanSpec) -> None:
        super().__init__()
        _check(spec)
        style, form = Style(activation=spec.activation), ElanForm.of(spec.taken, spec.depth, spec.conv)
        stem, hidden, outs = (
            [scale_width(c, spec.width) for c in widths] for widths in (spec.stem_channels, spec.hidden, spec.channels)
        )
        strides = [4 << i for i in range(len(outs))]
        self.features = FeatureSpec(channels=tuple(outs), strides=tuple(strides)).since(spec.finest)
        self.stem = _stem(spec, stem, style)
        self._stages = [f"stage{stride}" for stride in strides]
        width = stem[-1]
        for i, name in enumerate(self._stages):
            down = None if i == 0 and spec.stem != "space-to-depth" else _down(spec.downsample, width, outs[i], style)
            entering = width if down is None or spec.downsample in ("pool", "pooled-conv") else outs[i]
            elan = build_elan(spec.groups, entering, hidden[i], outs[i], form=form, style=style)
            self.add_module(name, elan if down is None else nn.Sequential(down, elan))
            width = outs[i]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` -> maps of ``self.features``, finest first."""
        maps = [self.stem(images)]
        for name in self._stages:
            maps.append(self.get_submodule(name)(maps[-1]))
        return tuple(maps[-len(self.features) :])


def _stem(spec: ElanSpec, widths: list[int], style: Style) -> nn.Sequential:
    strides = {"conv": (1, 2, 1, 2), "small": (2, 2), "space-to-depth": (1,)}[spec.stem]
    before = 12 if spec.stem == "space-to-depth" else 3
    convs = [
        ConvNormAct(narrow, wide, 3, stride, style=style)
        for narrow, wide, stride in zip([before, *widths[:-1]], widths, strides, strict=True)
    ]
    return nn.Sequential(SpaceToDepth(), *convs) if spec.stem == "space-to-depth" else nn.Sequential(*convs)


def _down(kind: Downsample, width: int, stage_width: int, style: Style) -> nn.Module:
    match kind:
        case "pool":
            return nn.MaxPool2d(2)
        case "pooled-conv":
            return PooledDown(width, width, inner=width // 2, style=style)
        case "conv":
            return ConvNormAct(width, stage_width, 3, 2, style=style)
        case "pooled-csp":
            return PooledDown(width, stage_width, inner=width, style=style)


def _check(spec: ElanSpec) -> None:
    convs = {"conv": 4, "small": 2, "space-to-depth": 1}[spec.stem]
    if len(spec.stem_channels) != convs:
        raise ConfigError(
            f"backbone.stem_channels = {spec.stem_channels} does not fit stem {spec.stem!r}",
            f"that stem has {convs} convolutions", f"give {convs} widths",
        )  # fmt: skip
    if len(spec.hidden) != len(spec.channels) or len(spec.channels) < 2:
        raise ConfigError(
            f"backbone.hidden has {len(spec.hidden)} widths and backbone.channels {len(spec.channels)}",
            "both name one width per stage, and there are at least two stages", "give equally many",
        )  # fmt: skip
