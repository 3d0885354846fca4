"""Box regression losses of aligned pairs."""

from __future__ import annotations

from torch import Tensor

from cloverleaf.ops.iou import aligned_iou


def ciou_loss(predicted_xyxy: Tensor, target_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """Complete-IoU loss (arXiv 1911.08287): ``(n, 4)``, ``(n, 4)`` in one unit to the loss ``(n,)`` in about [0, 3]
    and the CIoU ``(n,)`` itself; n may be 0."""
    ciou = aligned_iou(predicted_xyxy, target_xyxy, "ciou")
    return 1 - ciou, ciou
