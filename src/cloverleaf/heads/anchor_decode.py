"""Anchor-based box arithmetic: raw logits to boxes in pixels and scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cloverleaf.ops.cells import box_channels, decode_sides


def decode_anchors(
    levels: Sequence[Tensor], anchors_px: Tensor, strides: Sequence[int], bins: int = 0
) -> tuple[Tensor, Tensor]:
    """Boxes and scores of every prediction (arXiv 2207.02696; decoding as in the published implementation).

    With y the sigmoid of the raw values: centre = (2 y - 0.5 + cell) * stride, size = (2 y)^2 * anchor, and the score
    of a class is objectness times class probability. With one class the score is the objectness alone, because the
    class logit is not trained then.

    Args:
        levels: raw ``(B, A, H_i, W_i, 5 + K)`` per level, finest first; 3 + 2 (bins + 1) + K with bins.
        anchors_px: ``(L, A, 2)`` anchor (width, height) in input pixels.
        strides: input pixels per cell of each level.
        bins: above 0 the sides are classified into bins (`cloverleaf.ops.sigmoid_bin`); centre and scores are the same.

    Returns:
        Boxes ``(B, N, 4)`` float32 xyxy in input pixels (not clipped) and scores ``(B, N, K)`` float32 in [0, 1]. The
        order of predictions is stride ascending, then anchor, then row, then column.
    """
    decoded = [
        _decode_level(raw, anchors, stride, bins)
        for raw, anchors, stride in zip(levels, anchors_px, strides, strict=True)
    ]
    return torch.cat([boxes for boxes, _ in decoded], 1), torch.cat([scores for _, scores in decoded], 1)


def _decode_level(raw: Tensor, anchors_px: Tensor, stride: int, bins: int) -> tuple[Tensor, Tensor]:
    y = raw.float().sigmoid()
    rows = torch.arange(raw.shape[2], device=raw.device, dtype=y.dtype)
    columns = torch.arange(raw.shape[3], device=raw.device, dtype=y.dtype)
    cells = torch.stack((columns.expand(raw.shape[2], -1), rows[:, None].expand(-1, raw.shape[3])), -1)
    centre = (y[..., 0:2] * 2 - 0.5 + cells) * stride
    half = decode_sides(y, bins) * (anchors_px[:, None, None] / 2)
    boxes = torch.cat((centre - half, centre + half), -1)
    first = box_channels(bins)
    objectness, classes = y[..., first : first + 1], y[..., first + 1 :]
    scores = objectness if classes.shape[-1] == 1 else objectness * classes
    return boxes.flatten(1, 3), scores.flatten(1, 3)
