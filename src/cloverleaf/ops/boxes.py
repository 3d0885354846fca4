"""Conversions and measures of boxes; the last axis holds the four numbers, leading axes are free."""

from __future__ import annotations

import torch
from torch import Tensor


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners (x1, y1, x2, y2) to centre and size (cx, cy, w, h); ``(..., 4)`` to ``(..., 4)``, any unit."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat(((low + high) / 2, high - low), -1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Centre and size (cx, cy, w, h) to corners (x1, y1, x2, y2); ``(..., 4)`` to ``(..., 4)``, any unit."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat((centre - half, centre + half), -1)


def clip_xyxy(boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Corners ``(..., 4)`` in pixels, cut to an image of ``size_hw``: x to [0, W], y to [0, H]."""
    height, width = size_hw
    return torch.stack(
        (
            boxes[..., 0].clamp(0, width),
            boxes[..., 1].clamp(0, height),
            boxes[..., 2].clamp(0, width),
            boxes[..., 3].clamp(0, height),
        ),
        -1,
    )


def box_area(boxes: Tensor) -> Tensor:
    """Area of corner boxes, ``(..., 4)`` to ``(...)``; negative where a box has one negative side."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
