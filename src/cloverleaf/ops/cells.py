"""Reading the cells that an assignment names out of the raw outputs of anchor-based heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cloverleaf.structures import AnchorAssignment


def gather_cells(levels: Sequence[Tensor], cells: AnchorAssignment, counts: Sequence[int]) -> Tensor:
    """The raw predictions at `cells`.

    Args:
        levels: ``(B, A, H_i, W_i, C)`` per level.
        cells: n cells, sorted by level.
        counts: how many of them lie on each level.

    Returns:
        ``(n, C)`` float32 in the order of `cells`, differentiable by the levels.
    """
    indices = (cells.image_index, cells.anchor, cells.row, cells.column)
    parts = zip(levels, *(index.split(list(counts)) for index in indices), strict=True)
    return torch.cat([level[b, a, r, c] for level, b, a, r, c in parts]).float()


def decode_in_cells(raw: Tensor, cells: AnchorAssignment, anchors_px: Tensor, strides: Tensor) -> Tensor:
    """Predicted boxes relative to the corner of their own cell.

    Args:
        raw: ``(n, >= 4)`` logits (tx, ty, tw, th, ...).
        cells: where they were read.
        anchors_px: ``(L, A, 2)`` (width, height) in input pixels.
        strides: ``(L,)`` pixels per cell.

    Returns:
        ``(n, 4)`` centre and size in units of the level's cells: centres in (-0.5, 1.5), sizes up to 4 anchors.
    """
    sigmoid = raw[:, :4].sigmoid()
    anchors = (anchors_px.to(raw) / strides.to(raw)[:, None, None])[cells.level, cells.anchor]
    return torch.cat((2 * sigmoid[:, :2] - 0.5, (2 * sigmoid[:, 2:]).square() * anchors), -1)


def flat_index(levels: Sequence[Tensor], cells: AnchorAssignment) -> Tensor:
    """``(n,)`` position of each cell among all cells, in the order (level, image, anchor, row, column)."""
    shapes = torch.tensor([level.shape[:4] for level in levels], device=cells.level.device)
    sizes = shapes.prod(1)
    _, anchors, rows, columns = shapes[cells.level].unbind(1)
    within = ((cells.image_index * anchors + cells.anchor) * rows + cells.row) * columns + cells.column
    return (sizes.cumsum(0) - sizes)[cells.level] + within
