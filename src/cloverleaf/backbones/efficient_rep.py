"""EfficientRep and its CSP form: the backbones of Gold-YOLO (arXiv 2209.02976, section 2.1; 2301.05586)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from cloverleaf.backbones.stages import Stages
from cloverleaf.layers.rep_block import BlockKind, Body, block, block_style, body
from cloverleaf.layers.spp import SppCspc, Sppf
from cloverleaf.layers.style import scale_width

Pool = Literal["sppf", "csp-sppf"]
_CHANNELS = (64, 128, 256, 512, 1024)  # of the stem and of the stages, at width 1
_REPEATS = (6, 12, 18, 6)  # of the stages, at depth 1


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class EfficientRepSpec:
    """Options of `EfficientRep` with stages of blocks in a row; the defaults are those of gold-yolo-n.

    Attributes:
        width: multiplies the widths 64, 128, 256, 512, 1024; results are rounded up to a multiple of 8.
        depth: multiplies the numbers of blocks 6, 12, 18, 6.
        block: RepVGG blocks, or convolutions.
        pool: pyramid pooling after the last stage, on the only path or on one of two.
    """

    type: Literal["efficient-rep"] = "efficient-rep"
    width: Annotated[float, Field(gt=0, le=8)] = 0.25
    depth: Annotated[float, Field(gt=0, le=4)] = 0.33
    block: BlockKind = "rep"
    pool: Pool = "csp-sppf"

    def build(self) -> EfficientRep:
        """The module, freshly initialised."""
        return EfficientRep(self.width, self.depth, "chain", 1.0, self.block, self.pool)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class CspBepSpec:
    """Options of `EfficientRep` with cross-stage partial stages; the defaults are those of gold-yolo-m.

    Attributes:
        width, depth, block, pool: as in `EfficientRepSpec`.
        expansion: width inside the stages over that of their output.
    """

    type: Literal["csp-bep"] = "csp-bep"
    width: Annotated[float, Field(gt=0, le=8)] = 0.75
    depth: Annotated[float, Field(gt=0, le=4)] = 0.6
    expansion: Annotated[float, Field(gt=0, le=2)] = 2 / 3
    block: BlockKind = "rep"
    pool: Pool = "sppf"

    def build(self) -> EfficientRep:
        """The module, freshly initialised."""
        return EfficientRep(self.width, self.depth, "csp", self.expansion, self.block, self.pool)


class EfficientRep(Stages):
    """Image to maps of strides 4, 8, 16 and 32.

    A stage is a block of stride 2 and a chain of blocks or a `BepC3`; the last one ends with pyramid pooling. Stages
    carry the stride of their output in their names.

    Args:
        width, depth: multiply widths and numbers of blocks.
        form: of the stages.
        expansion: width inside cross-stage partial stages.
        kind: of the blocks; it decides the activation of the pooling, too.
        pool: which pyramid pooling.
    """

    def __init__(self, width: float, depth: float, form: Body, expansion: float, kind: BlockKind, pool: Pool) -> None:
        first, *outs = (scale_width(c, width) for c in _CHANNELS)
        repeats = [max(round(n * depth), 1) for n in _REPEATS]
        stem, style, last = block(kind, 3, first, 2), block_style(kind), outs[-1]
        pooling = Sppf(last, last, style=style) if pool == "sppf" else SppCspc(
            last, last, style=style, width=last // 2, bypass_first=True
        )  # fmt: skip
        stages = [
            nn.Sequential(block(kind, before, after, 2), body(form, after, count, expansion=expansion, kind=kind))
            for before, after, count in zip((first, *outs[:-1]), outs, repeats, strict=True)
        ]
        stages[-1].append(pooling)
        super().__init__(stem, stages, outs)
