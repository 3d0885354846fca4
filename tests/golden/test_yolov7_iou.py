"""IoU and its generalised forms against the published numbers."""

import pytest
import torch

from cloverleaf.ops.boxes import cxcywh_to_xyxy
from cloverleaf.ops.iou import aligned_iou, pairwise_iou


def boxes(numbers, name):
    return torch.from_numpy(numbers[name])


@pytest.mark.parametrize(("kind", "key"), [("iou", "plain"), ("giou", "GIoU"), ("diou", "DIoU"), ("ciou", "CIoU")])
def test_aligned_forms(golden, kind, key):
    numbers = golden("yolov7/iou")
    first, second = boxes(numbers, "box1_xywh"), boxes(numbers, "box2_xywh")
    actual = aligned_iou(cxcywh_to_xyxy(first), cxcywh_to_xyxy(second), kind)
    torch.testing.assert_close(actual, boxes(numbers, f"iou_{key}"), rtol=0, atol=1e-5)


def test_gradient_of_ciou(golden):
    numbers = golden("yolov7/iou")
    first, second = boxes(numbers, "box1_xywh").requires_grad_(), boxes(numbers, "box2_xywh")
    (1 - aligned_iou(cxcywh_to_xyxy(first), cxcywh_to_xyxy(second), "ciou")).mean().backward()
    expected = boxes(numbers, "grad_mean_1_minus_ciou_wrt_box1")
    torch.testing.assert_close(first.grad, expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_pairwise(golden):
    numbers = golden("yolov7/iou")
    first, second = cxcywh_to_xyxy(boxes(numbers, "box1_xywh")[:16]), cxcywh_to_xyxy(boxes(numbers, "box2_xywh")[:20])
    torch.testing.assert_close(pairwise_iou(first, second), boxes(numbers, "pairwise"), rtol=0, atol=1e-5)
