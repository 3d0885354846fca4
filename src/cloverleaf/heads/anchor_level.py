"""One level of an anchor-based head: stem, projection to the raw outputs, and implicit knowledge around it."""

from __future__ import annotations

import dataclasses
from typing import Literal

from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.implicit import NONE, Implicit, Placements, absorbed, maybe_implicit, width_behind
from cloverleaf.layers.rep_conv import RepConv
from cloverleaf.layers.style import Style, scale_width

Stem = Literal["conv", "rep", "none"]


@dataclasses.dataclass(frozen=True, slots=True)
class LevelKnowledge:
    """Implicit knowledge of one level.

    Attributes:
        placements: of `align`, `refine`, `anchor` and `offset`.
        sides, centre: the outputs for which `anchor` and `offset` are: width and height, x and y of every anchor.
    """

    placements: Placements = NONE
    sides: tuple[int, ...] = ()
    centre: tuple[int, ...] = ()


class AnchorLevel(nn.Module):
    """One level: stem, then offset(anchor(multiply(project(add(x))))) with a 1x1 projection to the raw outputs.

    Attributes:
        stem: a block, or nothing.
        add, multiply: implicit knowledge before (`align`) and behind the projection (`refine`), named after the
            released operators whatever they are; or nothing.
        project: the last convolution.
        anchor, offset: implicit knowledge for some of the outputs, or nothing.
    """

    def __init__(self, stem: nn.Module, project: nn.Conv2d, **implicit: nn.Module) -> None:
        super().__init__()
        self.stem = stem
        self.add = implicit.get("align", nn.Identity())
        self.project = project
        self.multiply = implicit.get("refine", nn.Identity())
        self.anchor = implicit.get("anchor", nn.Identity())
        self.offset = implicit.get("offset", nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, A * (5 + K), H, W)``."""
        return self.offset(self.anchor(self.multiply(self.project(self.add(self.stem(x))))))

    def reparameterized(self) -> AnchorLevel:
        """Implicit knowledge folded into the projection, as released: W' = m W, b' = m (b + W a)."""
        after = (self.multiply, self.anchor, self.offset)
        if not any(isinstance(module, Implicit) for module in (self.add, *after)):
            return self
        return AnchorLevel(self.stem, absorbed(self.project, before=self.add, after=after))


def anchor_level(
    stem_kind: Stem, channels: int, width: float, outputs: int, style: Style, knowledge: LevelKnowledge | None = None
) -> AnchorLevel:
    """A fresh level.

    Args:
        stem_kind: the block before the projection: a 3x3 convolution, a RepConv, or nothing.
        channels: width of the map that it reads.
        width: multiplies the width of the stem, which is twice ``channels`` at 1.0.
        outputs: of the projection.
        style: of the stem.
        knowledge: implicit knowledge; none where None.
    """
    wide = channels if stem_kind == "none" else scale_width(2 * channels, width)
    stem: nn.Module = nn.Identity()
    if stem_kind == "conv":
        stem = ConvNormAct(channels, wide, 3, style=style)
    elif stem_kind == "rep":  # nothing but the projection follows, so an identity branch is allowed where shapes fit
        stem = RepConv(channels, wide, style=style)
    knowledge = knowledge or LevelKnowledge()
    wanted = knowledge.placements
    align = maybe_implicit(wanted.align, wide)
    project = nn.Conv2d(width_behind(align, wide), outputs, 1)
    return AnchorLevel(
        stem, project, align=align, refine=maybe_implicit(wanted.refine, outputs),
        anchor=maybe_implicit(wanted.anchor, outputs, knowledge.sides, nth=1),
        offset=maybe_implicit(wanted.offset, outputs, knowledge.centre, nth=2),
    )  # fmt: skip
