"""Intersection over union of boxes, of all pairs and of aligned pairs, with the generalised forms."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from cloverleaf.ops.boxes import box_area

IouKind = Literal["iou", "giou", "diou", "ciou"]

_EPS = 1e-7
_SMALLEST_AREA = 1e-12  # only ever replaces a union of exactly zero


def pairwise_iou(first_xyxy: Tensor, second_xyxy: Tensor) -> Tensor:
    """IoU of all pairs: ``(..., N, 4)``, ``(..., M, 4)`` to ``(..., N, M)`` in [0, 1]; two empty boxes have IoU 0."""
    low = torch.maximum(first_xyxy[..., :, None, :2], second_xyxy[..., None, :, :2])
    high = torch.minimum(first_xyxy[..., :, None, 2:], second_xyxy[..., None, :, 2:])
    width, height = (high - low).clamp_(min=0).unbind(-1)
    overlap = width * height
    union = box_area(first_xyxy)[..., :, None] + box_area(second_xyxy)[..., None, :] - overlap
    return overlap / union.clamp_(min=_SMALLEST_AREA)


def aligned_iou(first_xyxy: Tensor, second_xyxy: Tensor, kind: IouKind = "iou") -> Tensor:
    """IoU, or one of its generalised forms, of boxes paired by position.

    The epsilons follow the published YOLOv7 implementation (1e-7, added to the heights, the union and the enclosing
    measure), so that losses agree with it to float32 rounding. Sources: GIoU arXiv 1902.09630; DIoU and CIoU
    arXiv 1911.08287, where the aspect weight of CIoU gets no gradient.

    Args:
        first_xyxy: ``(..., 4)`` corners, usually the predictions.
        second_xyxy: ``(..., 4)`` corners in the same unit.
        kind: the form.

    Returns:
        ``(...)``: "iou" in [0, 1], "giou" and "diou" in [-1, 1], "ciou" in about [-2, 1]. Differentiable by both.
    """
    ax1, ay1, ax2, ay2 = first_xyxy.unbind(-1)
    bx1, by1, bx2, by2 = second_xyxy.unbind(-1)
    aw, ah = ax2 - ax1, ay2 - ay1 + _EPS
    bw, bh = bx2 - bx1, by2 - by1 + _EPS
    overlap_w = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    overlap_h = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    overlap = overlap_w * overlap_h
    union = aw * ah + bw * bh - overlap + _EPS
    iou = overlap / union
    if kind == "iou":
        return iou
    hull_w = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    hull_h = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    if kind == "giou":
        hull = hull_w * hull_h + _EPS
        return iou - (hull - union) / hull
    diagonal = hull_w.square() + hull_h.square() + _EPS
    distance = ((bx1 + bx2 - ax1 - ax2).square() + (by1 + by2 - ay1 - ay2).square()) / 4
    if kind == "diou":
        return iou - distance / diagonal
    if kind == "ciou":
        aspect = (4 / math.pi**2) * (torch.atan(bw / (bh + _EPS)) - torch.atan(aw / (ah + _EPS))).square()
        with torch.no_grad():
            weight = aspect / (aspect - iou + (1 + _EPS))
        return iou - (distance / diagonal + aspect * weight)
    raise ValueError(f"unknown kind of IoU {kind!r}; valid: iou, giou, diou, ciou")
