"""Values of maps at real-valued points, and where a segmentation is in doubt (PointRend, arXiv 1912.08193)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sample_at(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear interpolation at points, each image at its own.

    The middle of a cell has its value; beyond the outermost middles the values stay as they are there. So the result is
    what `torch.nn.functional.interpolate` (bilinear, align_corners=False) gives at the middles of the larger map.

    Args:
        maps: ``(B, C, H, W)``.
        points: ``(B, P, 2)`` (x, y) in [0, 1], from the left and upper edge of the map to the right and lower one.

    Returns:
        ``(B, C, P)``.
    """
    grid = (points * 2 - 1)[:, :, None].to(maps.dtype)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)[..., 0]


def labels_at(labels: Tensor, points: Tensor) -> Tensor:
    """The label of the pixel that each point lies in.

    Args:
        labels: ``(B, H, W)`` of any type.
        points: ``(B, P, 2)`` (x, y) in [0, 1].

    Returns:
        ``(B, P)``.
    """
    height, width = labels.shape[1:]
    cells = (points * points.new_tensor([width, height])).long()
    column, row = cells[..., 0].clamp(0, width - 1), cells[..., 1].clamp(0, height - 1)
    return labels.flatten(1).gather(1, row * width + column)


def uncertainty(logits: Tensor) -> Tensor:
    """``(B, K, ...)`` class logits -> ``(B, ...)``, at most 0: how little the best class leads the second best."""
    best = logits.topk(2, dim=1).values
    return best[:, 1] - best[:, 0]


def most_uncertain(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The cells of each image whose class is least certain.

    Args:
        logits: ``(B, K, H, W)``.
        count: N, how many; all cells where there are fewer.

    Returns:
        Flat indices ``(B, N)`` of the cells and their middles ``(B, N, 2)`` as (x, y) in [0, 1].
    """
    height, width = logits.shape[2:]
    index = uncertainty(logits).flatten(1).topk(min(count, height * width), dim=1).indices
    column, row = index % width, torch.div(index, width, rounding_mode="floor")
    return index, torch.stack(((column + 0.5) / width, (row + 0.5) / height), -1)
