"""The kinds of fusion, and which maps a level of RevCol gives each of them to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cloverleaf.backbones.revcol.attention import AttentionFusion
from cloverleaf.backbones.revcol.fusion import Fusion
from cloverleaf.backbones.revcol.weighted_fusion import WeightedFusion

FusionKind = Literal["sum", "weighted", "attention"]


def build_fusion(kind: FusionKind, level: int, channels: Sequence[int], *, first: bool, far: bool) -> Fusion:
    """The fusion of one level.

    Args:
        kind: plain sum, sum with learned weights, or attention over all maps that may be read.
        level: 0 for the finest.
        channels: width of every level.
        first: the column has no left one.
        far: the finest level reads the coarsest map of the left column, too.
    """
    coarser = {} if first else dict(enumerate(channels[level + 1 :]))
    last = len(channels) - 1
    higher = {place: coarser[place] for place in coarser if place == 0 or (far and level == 0 and place == last - 1)}
    below, halve = channels[max(level - 1, 0)], level > 0
    if kind == "weighted":
        return WeightedFusion(below, channels[level], higher, halve=halve)
    if kind == "attention":
        further = {place: width for place, width in coarser.items() if place not in higher}
        finer = {distance: channels[level - distance] for distance in range(2, level + 1)}
        return AttentionFusion(below, channels[level], higher, halve=halve, finer=finer, further=further)
    return Fusion(below, channels[level], higher, halve=halve)
