"""The backbones of Scaled-YOLOv4 (arXiv 2011.08036) and YOLOR (2105.04206): stages of cross-stage partial blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cloverleaf.errors import ConfigError
from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.csp import Bottleneck, CspBlock
from cloverleaf.layers.csp_shared_norm import SharedNormCspBlock
from cloverleaf.layers.downsample import CspHalving, HaarWavelet, SpaceToDepth, halving
from cloverleaf.layers.style import Activation, NormEps, Style, scale_width
from cloverleaf.structures import FeatureSpec

Width = Annotated[int, Field(ge=1, le=16384)]
Depth = Annotated[int, Field(ge=1, le=64)]
Stem = Literal["conv", "residual", "space-to-depth", "space-to-depth-8", "wavelet-8"]
Norm = Literal["separate", "shared"]


@plain_dataclass(frozen=True, slots=True)
class StemForm:
    """What the stages need to know of a stem.

    Attributes:
        stride: of its output.
        widths: how many of `stem_channels` it takes.
        halved: whether the first stage halves the stem's output, as all others halve what they are given.
    """

    stride: int
    widths: int
    halved: bool = True


STEMS: Mapping[Stem, StemForm] = {
    "conv": StemForm(1, 1),
    "residual": StemForm(2, 2),
    "space-to-depth": StemForm(2, 1),
    "space-to-depth-8": StemForm(8, 0, halved=False),
    "wavelet-8": StemForm(8, 0, halved=False),
}
# How the paths of a block are normalised -> block(in_channels, out_channels, depth, transition=..., style=...).
BLOCKS: Mapping[Norm, Callable[..., nn.Module]] = {"separate": CspBlock, "shared": SharedNormCspBlock}


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CspStagesSpec:
    """Options of `CspStages`; the defaults are small enough to train on a CPU.

    Attributes:
        width: multiplies every width; results are rounded up to a multiple of 8.
        stem: `conv`: a 3x3 convolution, at full size; `residual`: two, the second of stride 2, and a bottleneck;
            `space-to-depth`: ReOrg and a 3x3 convolution, at stride 2; `space-to-depth-8`: ReOrg three times, at stride
            8; `wavelet-8`: the Haar wavelet three times.
        stem_channels: width of each convolution of the stem outside its bottleneck.
        channels: width of each stage's output, finest first; a block's paths have half of it.
        depths: residual bottlenecks of each stage's block.
        transition: end the path of the bottlenecks with a 1x1 convolution.
        norm: `separate`: each path of a block is normalised by itself; `shared`: both by one norm after they meet.
        downsample: before each block: `conv`: 3x3 of stride 2; `pooled-csp`: DownC.
        activation: of every convolution.
        norm_eps: epsilon of every BatchNorm.
        finest: stride of the finest map that is given; 4 suits necks that gather from it.
    """

    type: Literal["csp-stages"] = "csp-stages"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    stem: Stem = "residual"
    stem_channels: tuple[Width, ...] = (16, 24)
    channels: tuple[Width, ...] = (32, 64, 128, 256)
    depths: tuple[Depth, ...] = (1, 2, 2, 1)
    transition: bool = True
    norm: Norm = "separate"
    downsample: CspHalving = "conv"
    activation: Activation = "silu"
    norm_eps: NormEps = 1e-3
    finest: Literal[4, 8] = 8

    def build(self) -> CspStages:
        """The module, freshly initialised.

        Raises:
            ConfigError: widths and depths do not fit each other or the stem.
        """
        return CspStages(self)


class CspStages(nn.Module):
    """Image to features of stride 4 or 8 and coarser.

    A stage is a halving and a cross-stage partial block, and carries the stride of its output in its name.
    """

    def __init__(self, spec: CspStagesSpec) -> None:
        super().__init__()
        _check(spec)
        style = Style(activation=spec.activation, norm_eps=spec.norm_eps)
        form = STEMS[spec.stem]
        stem, outs = ([scale_width(c, spec.width) for c in widths] for widths in (spec.stem_channels, spec.channels))
        strides = _strides(spec)
        self.features = FeatureSpec(channels=tuple(outs), strides=strides).since(spec.finest)
        self.stem = _stem(spec.stem, stem, style)
        self._stages = [f"stage{stride}" for stride in strides]
        width = stem[-1] if stem else 3 * form.stride**2
        for i, name in enumerate(self._stages):
            halved = i > 0 or form.halved
            block = BLOCKS[spec.norm](
                outs[i] if halved else width, outs[i], spec.depths[i], transition=spec.transition, style=style
            )
            if halved:
                block = nn.Sequential(halving(spec.downsample, width, outs[i], style=style), block)
            self.add_module(name, block)
            width = outs[i]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """``(B, 3, H, W)`` -> maps of ``self.features``, finest first."""
        maps = [self.stem(images)]
        for name in self._stages:
            maps.append(self.get_submodule(name)(maps[-1]))
        return tuple(maps[-len(self.features) :])


def _stem(kind: Stem, widths: list[int], style: Style) -> nn.Sequential:
    match kind:
        case "conv":
            return nn.Sequential(ConvNormAct(3, widths[0], 3, style=style))
        case "residual":
            return nn.Sequential(
                ConvNormAct(3, widths[0], 3, style=style),
                ConvNormAct(widths[0], widths[1], 3, 2, style=style),
                Bottleneck(widths[1], style=style),
            )
        case "space-to-depth":
            return nn.Sequential(SpaceToDepth(), ConvNormAct(12, widths[0], 3, style=style))
        case "space-to-depth-8":
            return nn.Sequential(SpaceToDepth(), SpaceToDepth(), SpaceToDepth())
        case "wavelet-8":
            return nn.Sequential(HaarWavelet(3), HaarWavelet(12), HaarWavelet(48))


def _strides(spec: CspStagesSpec) -> tuple[int, ...]:
    form = STEMS[spec.stem]
    return tuple(form.stride << (i + form.halved) for i in range(len(spec.channels)))


def _check(spec: CspStagesSpec) -> None:
    form, stages = STEMS[spec.stem], len(spec.channels)
    if len(spec.stem_channels) != form.widths:
        raise ConfigError(
            f"backbone.stem_channels = {spec.stem_channels} does not fit stem {spec.stem!r}",
            f"that stem takes {form.widths} widths", "give as many" if form.widths else "set backbone.stem_channels=[]",
        )  # fmt: skip
    if stages != len(spec.depths):
        raise ConfigError(
            f"backbone.channels has {stages} widths and backbone.depths {len(spec.depths)} numbers",
            "both name one per stage", "give equally many",
        )  # fmt: skip
    if spec.finest not in (strides := _strides(spec)):
        raise ConfigError(
            f"backbone.finest = {spec.finest} is the stride of no map",
            f"those behind stem {spec.stem!r} have {', '.join(map(str, strides))}",
            "give more stages" if strides[-1] < spec.finest else f"set backbone.finest={strides[0]}",
        )
