"""The embedding of a box: read from feature maps at its centre, on the level that its size decides."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

CELLS = 4.0  # a box of so many cells' side, or up to twice that, is read from a level; smaller ones from finer levels


def level_of_boxes(boxes_xyxy: Tensor, strides: Sequence[int]) -> Tensor:
    """``(M,)`` int64 index of the level from which the embedding of each box is read.

    Args:
        boxes_xyxy: ``(M, 4)`` in input pixels.
        strides: input pixels per cell, ascending.
    """
    sides = (boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).clamp(min=0).prod(1).sqrt()
    bounds = sides.new_tensor([CELLS * stride for stride in strides[1:]])
    return torch.bucketize(sides, bounds, right=True)


def sample_embeddings(
    maps: Sequence[Tensor], strides: Sequence[int], boxes_xyxy: Tensor, image_index: Tensor
) -> Tensor:
    """Embeddings of boxes, of length 1.

    Every object has one embedding, at its centre (bilinear between cells), so that training, judging and prediction
    read it in the same way and no assigner is needed; JDE (arXiv 1909.12605) has one per matched cell.

    Args:
        maps: per level ``(B, D, H_l, W_l)``, finest first.
        strides: input pixels per cell of each level.
        boxes_xyxy: ``(M, 4)`` in input pixels.
        image_index: ``(M,)`` int64 in [0, B).

    Returns:
        ``(M, D)`` float32, rows of length 1; differentiable in ``maps``.
    """
    level = level_of_boxes(boxes_xyxy, strides)
    centres = (boxes_xyxy[:, :2] + boxes_xyxy[:, 2:]) / 2
    rows = maps[0].new_zeros((len(boxes_xyxy), maps[0].shape[1]), dtype=torch.float32)
    for number, (of_level, stride) in enumerate(zip(maps, strides, strict=True)):
        chosen = (level == number).nonzero()[:, 0]
        values = _bilinear(of_level, centres[chosen] / stride - 0.5, image_index[chosen])
        rows = rows.index_copy(0, chosen, values)
    return F.normalize(rows, dim=1, eps=1e-6)


def _bilinear(values: Tensor, points: Tensor, image_index: Tensor) -> Tensor:
    """``(n, D)`` at ``points`` ``(n, 2)``: (column, row) in cells from the middle of the first, clamped to the map."""
    height, width = values.shape[2:]
    last = points.new_tensor([width - 1, height - 1])
    points = torch.minimum(points.clamp(min=0), last)
    low = points.floor()
    share = (points - low).float()
    low = low.long()
    high = torch.minimum(low + 1, last.long())
    total = values.new_zeros((len(points), values.shape[1]), dtype=torch.float32)
    for column, weight_x in ((low[:, 0], 1 - share[:, 0]), (high[:, 0], share[:, 0])):
        for row, weight_y in ((low[:, 1], 1 - share[:, 1]), (high[:, 1], share[:, 1])):
            total = total + values[image_index, :, row, column].float() * (weight_x * weight_y)[:, None]
    return total
