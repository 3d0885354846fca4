"""Box regression losses of aligned pairs."""

from __future__ import annotations

from torch import Tensor

from cloverleaf.ops.iou import IouKind, aligned_iou

_EPS = 1e-10  # of the published Gold-YOLO


def ciou_loss(predicted_xyxy: Tensor, target_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Complete-IoU loss (arXiv 1911.08287): ``(n, 4)``, ``(n, 4)`` in one unit to the loss ``(n,)`` in about [0, 3]
    and the CIoU ``(n,)`` itself; n may be 0."""
    ciou = aligned_iou(predicted_xyxy, target_xyxy, "ciou")
    return 1 - ciou, ciou


def iou_loss(predicted_xyxy: Tensor, target_xyxy: Tensor, kind: IouKind) -> Tensor:
    """Gold-YOLO's box loss: ``(n, 4)``, ``(n, 4)`` in one unit to ``(n,)``: 1 - IoU, or one of its other forms."""
    return 1 - aligned_iou(predicted_xyxy, target_xyxy, kind, eps=_EPS)
