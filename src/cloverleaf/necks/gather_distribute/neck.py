"""Gather and distribute: levels exchange information through one global map instead of from neighbour to neighbour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from cloverleaf.errors import ConfigError
from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.rep_block import BlockKind, Body, body
from cloverleaf.layers.style import Style, scale_width
from cloverleaf.necks.alignment import AlignableNeckSpec
from cloverleaf.necks.gather_distribute.align import HighFam, LowFam
from cloverleaf.necks.gather_distribute.fuse import HighIfm, LowIfm
from cloverleaf.necks.gather_distribute.inject import Inject
from cloverleaf.necks.gather_distribute.laf import HighLaf, LowLaf
from cloverleaf.necks.gather_distribute.transformer import TransformerForm
from cloverleaf.structures import FeatureSpec

Width = Annotated[int, Field(ge=1, le=16384)]
Count = Annotated[int, Field(ge=1, le=64)]
_STYLE = Style(activation="relu")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class GatherDistributeSpec(AlignableNeckSpec):
    """Options of `GatherDistribute`; the defaults are those of the n and s models.

    Attributes:
        width: multiplies the widths; results are rounded up to a multiple of 8.
        finest: stride of the finest output; one finer map of the backbone, where there is one, is gathered from too.
        low, high: the two stages; without a stage its levels get no global information.
        laf: neighbouring levels meet before the injection.
        low_channels: width of every output of the low stage, finest first; half of the backbone's where None.
        high_channels: width of every output of the high stage, finest first; half of the backbone's where None.
        low_width: width inside the low-stage IFM; an eighth of what is gathered where None.
        low_depth: blocks of the low-stage IFM.
        depth: blocks after every injection.
        body: how they are put together: in a row, or as a cross-stage partial block.
        expansion: width inside such a block over that of its output.
        block: kind of all blocks.
        high_depth, heads, key_dim, drop_path: of the transformer of the high-stage IFM; see `TransformerForm`.
        chained: the high-stage LAF reads the output of the finer level; otherwise, as in the l model, its state before
            the high stage.
    """

    type: Literal["gather-distribute"] = "gather-distribute"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    finest: Literal[4, 8] = 8
    low: bool = True
    high: bool = True
    laf: bool = True
    low_channels: tuple[Width, ...] | None = None
    high_channels: tuple[Width, ...] | None = None
    low_width: Width | None = None
    low_depth: Count = 3
    depth: Count = 4
    body: Body = "chain"
    expansion: Annotated[float, Field(gt=0, le=2)] = 0.5
    block: BlockKind = "rep"
    high_depth: Count = 2
    heads: Count = 4
    key_dim: Count = 8
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.1
    chained: bool = True

    def build(self, features: FeatureSpec) -> GatherDistribute:
        """The module for a backbone's ``features``, freshly initialised.

        Raises:
            ConfigError: the backbone has too few levels, or the given widths do not fit it.
        """
        neck = GatherDistribute(self, features)
        return self.aligned(neck, neck.low_blocks)


class GatherDistribute(nn.Module):
    """Backbone maps in, one map per output level out (arXiv 2309.11331).

    With B the maps of the backbone, P those after the low stage and N those after the high stage:

    - low stage, from coarse to fine: P_i = blocks(Inject(LAF(B_{i-1}, B_i, P_{i+1}), Low-IFM(Low-FAM(B)))); the
      coarsest level has no P but B itself.
    - high stage, from fine to coarse: N_i = blocks(Inject(LAF(N_{i-1}, P_i), High-IFM(High-FAM(P)))); the finest output
      is P.

    Between levels P is narrowed to the width of the next finer level (`narrow`).
    """

    def __init__(self, spec: GatherDistributeSpec, features: FeatureSpec) -> None:
        super().__init__()
        given = features.since(spec.finest // 2)
        levels = features.since(spec.finest)
        low, high = _widths(spec, levels)
        self.features = FeatureSpec(channels=(low[0], *high), strides=levels.strides)
        self.has_context = len(given) > len(levels)
        self._given = len(given)
        steps = len(low)  # levels of each stage
        coming = (*low, levels.channels[-1])  # width of each level after the low stage
        self.narrow = nn.ModuleList(
            ConvNormAct(coming[i + 1], low[i], style=_STYLE) if spec.laf else nn.Identity() for i in range(steps)
        )

        self.low_fam, self.low_ifm = None, None
        if spec.low:
            gathered = sum(given.channels)
            width = scale_width(spec.low_width or gathered / 8, spec.width)
            self.low_fam = LowFam()
            self.low_ifm = LowIfm(gathered, width, spec.low_depth, low[::-1], kind=spec.block)
        finer = [given.channels[i - 1] if (i := len(given) - len(levels) + level) else 0 for level in range(steps)]
        self.low_laf = nn.ModuleList(
            LowLaf(finer[i], levels.channels[i], low[i]) if spec.laf else nn.Identity() for i in range(steps)
        )
        self.low_inject = nn.ModuleList(
            _distribute(spec.low, low[i] if spec.laf else levels.channels[i], low[i]) for i in range(steps)
        )
        self.low_blocks = nn.ModuleList(_body(spec, width) for width in low)

        self.high_fam, self.high_ifm = None, None
        if spec.high:
            form = TransformerForm(
                depth=spec.high_depth, heads=spec.heads, key_dim=spec.key_dim, drop_path=spec.drop_path
            )
            self.high_fam, self.high_ifm = HighFam(), HighIfm(sum(coming), high, form=form)
        before = (low[0], *high[:-1]) if spec.chained else low
        self.chained = spec.chained
        self.high_laf = nn.ModuleList(HighLaf() if spec.laf else nn.Identity() for _ in high)
        self.high_inject = nn.ModuleList(
            _distribute(spec.high, before[i] + low[i] if spec.laf else coming[i + 1], high[i]) for i in range(steps)
        )
        self.high_blocks = nn.ModuleList(_body(spec, width) for width in high)
        self.laf = spec.laf

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Maps ``(B, C_l, H_l, W_l)``, finest first -> maps of ``self.features``, finest first."""
        given = list(features[-self._given :])
        passed, narrowed = self._low_stage(given)
        return self._high_stage(passed, narrowed)

    def _low_stage(self, given: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Every level after the low stage, and the narrowed map of each level but the finest; finest first."""
        levels = given[self.has_context :]
        shared = self._gathered(self.low_fam, self.low_ifm, given, len(self.low_blocks))[::-1]
        passed: list[Tensor] = [levels[-1]]
        narrowed: list[Tensor] = []
        for i in reversed(range(len(self.low_blocks))):
            narrowed.insert(0, self.narrow[i](passed[0]))
            local = levels[i]
            if self.laf:
                position = i + self.has_context
                local = self.low_laf[i](given[position - 1] if position else None, local, narrowed[0])
            passed.insert(0, self.low_blocks[i](_injected(self.low_inject[i], local, shared[i])))
        return passed, narrowed

    def _high_stage(self, passed: list[Tensor], narrowed: list[Tensor]) -> tuple[Tensor, ...]:
        shared = self._gathered(self.high_fam, self.high_ifm, passed, len(self.high_blocks))
        outputs = [passed[0]]
        for i in range(len(self.high_blocks)):
            local = passed[i + 1]
            if self.laf:
                local = self.high_laf[i](outputs[i] if self.chained else passed[i], narrowed[i])
            outputs.append(self.high_blocks[i](_injected(self.high_inject[i], local, shared[i])))
        return tuple(outputs)

    @staticmethod
    def _gathered(
        fam: nn.Module | None, ifm: nn.Module | None, maps: Sequence[Tensor], count: int
    ) -> Sequence[Tensor | None]:
        return [None] * count if fam is None or ifm is None else ifm(fam(maps))


def _distribute(stage: bool, local: int, out: int) -> nn.Module:
    """What brings a local map to ``out`` channels: the injection, or without its stage a 1x1 convolution if needed."""
    if stage:
        return Inject(local, out, out)
    return nn.Identity() if local == out else ConvNormAct(local, out, style=_STYLE)


def _injected(inject: nn.Module, local: Tensor, gathered: Tensor | None) -> Tensor:
    return inject(local) if gathered is None else inject(local, gathered)


def _body(spec: GatherDistributeSpec, width: int) -> nn.Module:
    return body(spec.body, width, spec.depth, expansion=spec.expansion, kind=spec.block)


def _widths(spec: GatherDistributeSpec, levels: FeatureSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Widths of the outputs of both stages, finest first."""
    if len(levels) < 3:
        raise ConfigError(
            f"neck {spec.type!r} does not fit its backbone",
            f"it needs maps of three or more strides from {spec.finest} on, got strides {levels.strides}",
            "choose a backbone with more levels",
        )
    for name, given in (("low_channels", spec.low_channels), ("high_channels", spec.high_channels)):
        if given is not None and len(given) != len(levels) - 1:
            raise ConfigError(
                f"neck.{name} has {len(given)} widths",
                f"each stage has {len(levels) - 1} levels for maps of strides {levels.strides}",
                "give one width per level, finest first, or null for widths that follow from the backbone",
            )
    low = spec.low_channels or [c / 2 for c in levels.channels[:-1]]
    high = spec.high_channels or [c / 2 for c in levels.channels[1:]]
    return tuple(scale_width(c, spec.width) for c in low), tuple(scale_width(c, spec.width) for c in high)
