"""The IoU losses of Gold-YOLO, their values and gradients, against the published numbers."""

import pytest
import torch

from cloverleaf.losses.box import iou_loss
from cloverleaf.ops.iou import aligned_iou

KINDS = ("iou", "giou", "diou", "ciou", "siou")


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients(golden, kind):
    numbers = golden("gold_yolo/iou_losses")
    first, second = (torch.from_numpy(numbers[name]) for name in ("box1", "box2"))
    first.requires_grad_()
    loss = iou_loss(first, second, kind)
    torch.testing.assert_close(loss, torch.from_numpy(numbers[kind]), rtol=0, atol=1e-9)
    loss[1:].sum().backward()  # the first two boxes are identical
    torch.testing.assert_close(first.grad, torch.from_numpy(numbers[f"{kind}.grad"]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_boxes_stay_finite_in_float32(kind):
    """Identical boxes, boxes on the same axis, inverted ones and boxes without size; the target has a size."""
    first = torch.tensor(
        [[0.0, 0, 4, 4], [0, 0, 4, 2], [4, 4, 0, 0], [2, 2, 2, 2], [-1e4, -1e4, 1e4, 1e4], [1, 1, 1 + 1e-7, 1 + 1e-7]]
    )
    first.requires_grad_()
    second = torch.tensor([0.0, 0, 4, 4]).expand_as(first)
    loss = 1 - aligned_iou(first, second, kind, eps=1e-10)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert first.grad.isfinite().all()
