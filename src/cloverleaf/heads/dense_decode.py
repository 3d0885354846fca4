"""Anchor-free box arithmetic: raw output to boxes in pixels and scores."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cloverleaf.errors import ConfigError
from cloverleaf.ops.points import cell_middles, distances_to_boxes, expected_distances, level_sizes
from cloverleaf.structures import DenseOutput


def decode_dense(raw: DenseOutput, strides: Sequence[int], size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Boxes and scores of every prediction (arXiv 2006.04388, section 3.2).

    The boxes are those of the direct branch where there is one.

    Args:
        raw: of a dense head.
        strides: input pixels per cell of each level.
        size_hw: network-input size.

    Returns:
        Boxes ``(B, N, 4)`` float32 xyxy in input pixels, not clipped; a side may lie on the wrong side of the cell.
        Scores ``(B, N, K)`` float32 in [0, 1]. The order of predictions is stride ascending, then row, then column.

    Raises:
        ConfigError: ``raw`` does not come from images of that size.
    """
    if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
        _check_size(raw, strides, size_hw)
    points, stride = cell_middles(strides, size_hw, device=raw.logits.device)
    distances = raw.direct.float() if raw.direct is not None else expected_distances(raw.distances)
    return distances_to_boxes(distances, points) * stride, raw.logits.float().sigmoid()


def _check_size(raw: DenseOutput, strides: Sequence[int], size_hw: tuple[int, int]) -> None:
    expected = sum(math.prod(cells) for cells in level_sizes(strides, size_hw))
    if raw.logits.shape[1] != expected:
        raise ConfigError(
            f"raw output does not come from images of size {size_hw}",
            f"it has {raw.logits.shape[1]} predictions per image, expected {expected}",
            "pass the (height, width) of the network input",
        )
