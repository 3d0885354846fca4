"""Intersection over union of boxes, of all pairs and of aligned pairs, with the generalised forms."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from cloverleaf.ops.boxes import box_area

IouKind = Literal["iou", "giou", "diou", "ciou", "siou"]

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


def aligned_iou(first_xyxy: Tensor, second_xyxy: Tensor, kind: IouKind = "iou", *, eps: float = _EPS) -> Tensor:
    """IoU, or one of its generalised forms, of boxes paired by position.

    The epsilon is added where the published implementations add it (to the heights, the union, the enclosing measure
    and, in "siou", to the distance of the centres), so that losses agree with them to float32 rounding: 1e-7 for
    YOLOv7, 1e-10 for Gold-YOLO. Sources: GIoU arXiv 1902.09630; DIoU and CIoU arXiv 1911.08287, where the aspect weight
    of CIoU gets no gradient; SIoU arXiv 2205.12740 in the form of the published Gold-YOLO.

    Args:
        first_xyxy: ``(..., 4)`` corners, usually the predictions.
        second_xyxy: ``(..., 4)`` corners in the same unit.
        kind: the form.
        eps: keeps quotients of boxes without size finite.

    Returns:
        ``(...)``: "iou" in [0, 1], "giou" and "diou" in [-1, 1], "ciou" in about [-2, 1], "siou" in about [-2, 1].
        Differentiable by both.
    """
    ax1, ay1, ax2, ay2 = first_xyxy.unbind(-1)
    bx1, by1, bx2, by2 = second_xyxy.unbind(-1)
    aw, ah = ax2 - ax1, ay2 - ay1 + eps
    bw, bh = bx2 - bx1, by2 - by1 + eps
    overlap_w = (torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)).clamp(min=0)
    overlap_h = (torch.minimum(ay2, by2) - torch.maximum(ay1, by1)).clamp(min=0)
    overlap = overlap_w * overlap_h
    union = aw * ah + bw * bh - overlap + eps
    iou = overlap / union
    if kind == "iou":
        return iou
    hull_w = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    hull_h = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    if kind == "giou":
        hull = hull_w * hull_h + eps
        return iou - (hull - union) / hull
    if kind == "siou":
        offset = torch.stack((bx1 + bx2 - ax1 - ax2, by1 + by2 - ay1 - ay2), -1) / 2 + eps
        sides, other_sides = torch.stack((aw, ah), -1), torch.stack((bw, bh), -1)
        return iou - (_siou_distance(offset, torch.stack((hull_w, hull_h), -1)) + _siou_shape(sides, other_sides)) / 2
    diagonal = hull_w.square() + hull_h.square() + eps
    distance = ((bx1 + bx2 - ax1 - ax2).square() + (by1 + by2 - ay1 - ay2).square()) / 4
    if kind == "diou":
        return iou - distance / diagonal
    if kind == "ciou":
        aspect = (4 / math.pi**2) * (torch.atan(bw / (bh + eps)) - torch.atan(aw / (ah + eps))).square()
        with torch.no_grad():
            weight = aspect / (aspect - iou + (1 + eps)).clamp(min=eps)  # a small eps is lost beside the 1 in float32
        return iou - (distance / diagonal + aspect * weight)
    raise ValueError(f"unknown kind of IoU {kind!r}; valid: iou, giou, diou, ciou, siou")


def _siou_distance(offset: Tensor, hull: Tensor) -> Tensor:
    """SIoU's cost of centres ``offset`` ``(..., 2)`` apart in an enclosing box of sides ``hull``: ``(...)`` in [0, 2].

    The farther the direction is from an axis, the less the distance itself costs.
    """
    length = offset.square().sum(-1).sqrt()
    sine = offset.abs() / length[..., None]
    sine = torch.where(sine[..., 0] > math.sqrt(0.5), sine[..., 1], sine[..., 0])
    decay = torch.cos(2 * sine.asin() - math.pi / 2) - 2
    return 2 - torch.exp(decay[..., None] * (offset / hull).square()).sum(-1)


def _siou_shape(first: Tensor, second: Tensor) -> Tensor:
    """SIoU's cost of differing sides, ``(..., 2)`` and ``(..., 2)``: ``(...)`` in [0, 2]."""
    difference = (first - second).abs() / torch.maximum(first, second)
    return (1 - torch.exp(-difference)).pow(4).sum(-1)
