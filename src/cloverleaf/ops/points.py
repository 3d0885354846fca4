"""The cells of anchor-free heads as points: one per cell of every level."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cloverleaf.ops.precision import at_least_float32


def level_sizes(strides: Sequence[int], size_hw: tuple[int, int]) -> list[tuple[int, int]]:
    """``(height, width)`` in cells of each level for a network input of ``size_hw``."""
    return [(-(-size_hw[0] // stride), -(-size_hw[1] // stride)) for stride in strides]


def cell_middles(
    strides: Sequence[int], size_hw: tuple[int, int], *, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """The middle of every cell, and its stride.

    Args:
        strides: input pixels per cell of each level.
        size_hw: network-input size.
        device: of the result.

    Returns:
        ``(N, 2)`` float32 (x, y) in cells of the level, the first at (0.5, 0.5), and ``(N, 1)`` float32 strides. The
        order is stride ascending, then row, then column.
    """
    points, sizes = [], []
    for stride, (height, width) in zip(strides, level_sizes(strides, size_hw), strict=True):
        columns = torch.arange(width, device=device, dtype=torch.float32) + 0.5
        rows = torch.arange(height, device=device, dtype=torch.float32) + 0.5
        grid = torch.stack((columns.expand(height, -1), rows[:, None].expand(-1, width)), -1).flatten(0, 1)
        points.append(grid)
        sizes.append(torch.full_like(grid[:, :1], stride))
    return torch.cat(points), torch.cat(sizes)


def expected_distances(distances: Tensor) -> Tensor:
    """``(..., 4 * R)`` raw distances -> ``(..., 4)``: the means of the distributions, or as they are where R is 1.

    Computed in float32, or in the type of ``distances`` where that is wider.
    """
    distances = at_least_float32(distances)
    if distances.shape[-1] == 4:
        return distances
    probabilities = distances.unflatten(-1, (4, -1)).softmax(-1)
    return probabilities @ torch.arange(probabilities.shape[-1], device=distances.device, dtype=distances.dtype)


def distances_to_boxes(distances: Tensor, points: Tensor) -> Tensor:
    """``(..., N, 4)`` distances to left, top, right, bottom from ``(N, 2)`` points -> boxes xyxy in the same unit."""
    return torch.cat((points - distances[..., :2], points + distances[..., 2:]), -1)
