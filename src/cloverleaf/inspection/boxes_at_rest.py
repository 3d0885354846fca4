"""What implicit knowledge of an anchor head means in pixels: the boxes that it predicts where features are zero."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from cloverleaf.heads.anchor_based import AnchorHead
from cloverleaf.heads.anchor_level import AnchorLevel
from cloverleaf.inspection.knowledge import Array
from cloverleaf.inspection.output_names import OutputNames
from cloverleaf.ops.cells import decode_sides

_LEAST_PAIRS = 5  # of anchors and factors, from which on a correlation is worth a look


@dataclass(frozen=True, slots=True)
class BoxesAtRest:
    """Boxes of one level's anchors where the features are zero, in pixels.

    The last convolution's outputs are then constants, m (b + W a) with implicit knowledge (arXiv 2105.04206, equations
    9 and 10) and b with the same convolution alone.

    Attributes:
        stride: of the level.
        anchors_px: (A, 2) as configured.
        alone, together: (A, 4) of the convolution alone and together with the implicit knowledge: centre x, y from the
            middle of the cell, width, height.
    """

    stride: int
    anchors_px: Array
    alone: Array
    together: Array


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rank correlation of two quantities over all anchors of a model, and how often chance gives as much."""

    of: str
    rho: float
    p: float
    anchors: int


def boxes_at_rest(head: AnchorHead) -> tuple[BoxesAtRest, ...]:
    """One for each level, finest first."""
    folded = copy.deepcopy(head)
    folded.deploy()
    found = []
    for level, constant, anchors, stride in zip(head.levels, folded.levels, head.anchors_px, head.strides, strict=True):
        alone, together = (
            _boxes(cast(AnchorLevel, one).project.bias, head, anchors, stride) for one in (level, constant)
        )
        found.append(BoxesAtRest(stride, anchors.double().cpu().numpy(), alone, together))
    return tuple(found)


@torch.no_grad()
def _boxes(bias: Tensor | None, head: AnchorHead, anchors_px: Tensor, stride: int) -> Array:
    assert bias is not None
    y = bias.double().view(head.num_anchors, -1).sigmoid()
    centre = (2 * y[:, :2] - 1) * stride
    return torch.cat((centre, decode_sides(y, head.bins) * anchors_px), 1).cpu().numpy()


def mirrored_anchors(factors: Sequence[Array], names: Sequence[OutputNames]) -> tuple[Correlation, ...]:
    """Whether factors of width and height follow the sides of their anchors.

    Args:
        factors: per level (A, columns).
        names: per level of its outputs.

    Returns:
        For w and h; nothing where there are too few anchors, or their sides are all the same.
    """
    found = []
    for axis, (side, name) in enumerate((("w", "width"), ("h", "height"))):
        sides = np.concatenate([cast(Array, of_level.anchors_px)[:, axis] for of_level in names])
        values = np.concatenate([f[:, n.kinds[side][0]] for f, n in zip(factors, names, strict=True)])
        if len(sides) < _LEAST_PAIRS or np.ptp(sides) == 0 or not np.isfinite(values).all():
            continue
        rho, p = stats.spearmanr(sides, values)
        found.append(Correlation(f"factor of {side}, {name} of the anchor", float(rho), float(p), len(sides)))
    return tuple(found)


def plain(one: BoxesAtRest) -> dict[str, Any]:
    """For JSON."""
    keys = ("centre_x_px", "centre_y_px", "width_px", "height_px")
    return {
        "stride": one.stride,
        "anchors": [
            {
                "anchor_px": anchor.tolist(),
                "convolution_alone": dict(zip(keys, alone.round(4).tolist(), strict=True)),
                "with_implicit_knowledge": dict(zip(keys, together.round(4).tolist(), strict=True)),
            }
            for anchor, alone, together in zip(one.anchors_px, one.alone, one.together, strict=True)
        ],
    }
