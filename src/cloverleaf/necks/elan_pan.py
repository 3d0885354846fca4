"""The neck of YOLOv7: pyramid pooling, then a path aggregation network whose merges are ELANs (arXiv 2207.02696)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.downsample import PooledDown, halving
from cloverleaf.layers.elan import Elan, ElanForm, ExtendedElan, Taken, build_elan
from cloverleaf.layers.planned import ConvKind
from cloverleaf.layers.spp import CspSpp, SppCspc
from cloverleaf.layers.style import Activation, Style, scale_width
from cloverleaf.necks.alignment import AlignableNeckSpec
from cloverleaf.necks.lateral_aggregation import LateralAggregation
from cloverleaf.necks.levels import check_widths, doubling_levels
from cloverleaf.structures import FeatureSpec

Width = Annotated[int, Field(ge=1, le=16384)]
Downsample = Literal["conv", "pooled-conv", "pooled-csp"]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ElanPanSpec(AlignableNeckSpec):
    """Options of `ElanPan`; the defaults are YOLOv7-tiny's.

    Attributes:
        width: multiplies the widths; results are rounded up to a multiple of 8.
        channels: width of each output (the transitions), finest first; half of the backbone's where None.
        hidden: computational width of the ELANs of each level; half of the output's where None.
        chain: width of an ELAN's 3x3 convolutions over its computational width; 0.5 in the "ELAN-W" of YOLOv7.
        depth: 3x3 convolutions in the chain of each ELAN.
        taken: which outputs of a chain are concatenated.
        spp: pyramid pooling of the coarsest map: `csp` (YOLOv7-tiny) or `cspc` (SPPCSPC, all others).
        downsample: on the way to coarser maps: `conv`: 3x3 of stride 2; `pooled-conv`: YOLOv7's transition;
            `pooled-csp`: DownC.
        groups: above 1 each ELAN becomes an E-ELAN of that cardinality.
        conv: kind of the chains' convolutions: plain, RepConv, or RepConv without identity before a concatenation.
        activation: of every convolution.
        finest: stride of the finest map that is read.
    """

    type: Literal["elan-pan"] = "elan-pan"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    channels: tuple[Width, ...] | None = None
    hidden: tuple[Width, ...] | None = None
    chain: Annotated[float, Field(gt=0, le=4)] = 1.0
    depth: Annotated[int, Field(ge=1, le=16)] = 2
    taken: Taken = "every"
    spp: Literal["csp", "cspc"] = "csp"
    downsample: Downsample = "conv"
    groups: Annotated[int, Field(ge=1, le=8)] = 1
    conv: ConvKind = "conv"
    activation: Activation = "leaky_relu"
    finest: Literal[4, 8] = 8

    def build(self, features: FeatureSpec) -> ElanPan:
        """The module for a backbone's ``features``, freshly initialised."""
        neck = ElanPan(self, features)
        return self.aligned(neck, neck.down_merge)


class ElanPan(LateralAggregation):
    """A `LateralAggregation` of ELANs.

    The maps of the way down follow the outputs for whoever wants auxiliary heads; of an E-ELAN it is the last branch
    before merging.
    """

    def __init__(self, spec: ElanPanSpec, features: FeatureSpec) -> None:
        levels = doubling_levels(spec.type, features, spec.finest)
        style, form = Style(activation=spec.activation), ElanForm.of(spec.taken, spec.depth, spec.conv)
        widths, hidden = _widths(spec, levels)

        def merge(i: int) -> nn.Module:
            return build_elan(
                spec.groups, 2 * widths[i], hidden[i], widths[i], form=form, style=style,
                chain_width=scale_width(hidden[i] * spec.chain),
            )  # fmt: skip

        super().__init__(
            levels, widths,
            pool=partial(CspSpp if spec.spp == "csp" else SppCspc, style=style),
            merge=merge,
            shrink=partial(_down, spec.downsample, style),
            narrow=partial(ConvNormAct, style=style),
        )  # fmt: skip
        self.features = replace(self.features, auxiliary=widths)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps ``(B, C_l, H_l, W_l)``, finest first -> maps of ``self.features``, finest first, auxiliary ones last."""
        features = features[-len(self.features) :]
        pyramid = [self.spp(features[-1])]  # grows towards finer levels at its front
        auxiliary = [pyramid[0]]
        for i in reversed(range(len(self.lateral))):
            merged, unmerged = _merge(self.down_merge[i], self.met(i, features[i], pyramid[0]))
            pyramid.insert(0, merged)
            auxiliary.insert(0, unmerged)
        return (*self.way_up(pyramid), *auxiliary)


def _merge(elan: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The output of an ELAN, and what an auxiliary head may read of it."""
    if isinstance(elan, ExtendedElan):
        merged, last = elan(x, with_last=True)
        return merged, last
    assert isinstance(elan, Elan)
    merged = elan(x)
    return merged, merged


def _down(kind: Downsample, style: Style, width: int, coarser: int) -> nn.Module:
    if kind == "pooled-conv":
        return PooledDown(width, coarser, inner=coarser // 2, style=style)
    return halving(kind, width, coarser, style=style)


def _widths(spec: ElanPanSpec, features: FeatureSpec) -> tuple[tuple[int, ...], list[int]]:
    """Widths of the outputs and computational widths."""
    check_widths("channels", spec.channels, features)
    check_widths("hidden", spec.hidden, features)
    wanted = spec.channels or [c / 2 for c in features.channels]
    hidden = spec.hidden or [c / 2 for c in wanted]
    return tuple(scale_width(c, spec.width) for c in wanted), [scale_width(c, spec.width) for c in hidden]
