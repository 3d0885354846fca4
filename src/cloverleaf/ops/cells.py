"""Reading the cells that an assignment names out of the raw outputs of anchor-based heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cloverleaf.ops.sigmoid_bin import decode_bins
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


def box_channels(bins: int = 0) -> int:
    """How many values of a raw prediction describe its box; the objectness comes after them, then the classes."""
    return 2 + 2 * (bins + 1)


def binned_sides(raw: Tensor, bins: int) -> Tensor:
    """The ``(..., 2, 1 + bins)`` values of width and height in ``(..., C)`` predictions with SigmoidBin sides."""
    return raw[..., 2 : box_channels(bins)].unflatten(-1, (2, bins + 1))


def decode_sides(sigmoid: Tensor, bins: int = 0) -> Tensor:
    """``(..., C)`` sigmoids of raw predictions to ``(..., 2)`` width and height in anchors, from 0 to 4."""
    return decode_bins(binned_sides(sigmoid, bins)) if bins else (sigmoid[..., 2:4] * 2).square()


def anchors_in_cells(cells: AnchorAssignment, anchors_px: Tensor, strides: Tensor) -> Tensor:
    """``(n, 2)`` width and height of each cell's anchor, in units of its level's cells."""
    return (anchors_px.to(strides) / strides[:, None, None])[cells.level, cells.anchor]


def decode_in_cells(raw: Tensor, cells: AnchorAssignment, anchors_px: Tensor, strides: Tensor, bins: int = 0) -> Tensor:
    """Predicted boxes relative to the corner of their own cell.

    Args:
        raw: ``(n, C)`` logits (tx, ty, tw, th, ...), or with SigmoidBin sides, where tw and th are `bins` + 1 each.
        cells: where they were read.
        anchors_px: ``(L, A, 2)`` (width, height) in input pixels.
        strides: ``(L,)`` pixels per cell of each level.
        bins: of the head; 0 where it regresses the sides.

    Returns:
        ``(n, 4)`` centre and size in units of the level's cells: centres in (-0.5, 1.5), sizes up to 4 anchors.
    """
    sigmoid = raw[:, : box_channels(bins)].sigmoid()
    sides = decode_sides(sigmoid, bins) * anchors_in_cells(cells, anchors_px, strides.to(raw))
    return torch.cat((2 * sigmoid[:, :2] - 0.5, sides), -1)


def flat_index(levels: Sequence[Tensor], cells: AnchorAssignment) -> Tensor:
    """``(n,)`` position of each cell among all cells, in the order (level, image, anchor, row, column)."""
    shapes = torch.tensor([level.shape[:4] for level in levels], device=cells.level.device)
    sizes = shapes.prod(1)
    _, anchors, rows, columns = shapes[cells.level].unbind(1)
    within = ((cells.image_index * anchors + cells.anchor) * rows + cells.row) * columns + cells.column
    return (sizes.cumsum(0) - sizes)[cells.level] + within
