"""Non-maximum suppression against the published result lists."""

import pytest
import torch

from cloverleaf.ops.boxes import cxcywh_to_xyxy
from cloverleaf.ops.nms import batched_nms

CASES = ["best_class", "multi_label", "agnostic", "classes", "one_class", "empty_second"]


@pytest.mark.parametrize("case", CASES)
def test_same_detections(golden, case):
    numbers = golden("yolov7/nms")
    prediction = torch.from_numpy(numbers[f"{case}/prediction"])
    objectness, classes = prediction[..., 4:5], prediction[..., 5:]
    scores = objectness if classes.shape[-1] == 1 else objectness * classes
    wanted = numbers.get(f"{case}/arg.classes")
    actual = batched_nms(
        cxcywh_to_xyxy(prediction[..., :4]),
        scores,
        confidence=float(numbers[f"{case}/arg.conf_thres"]),
        iou=float(numbers[f"{case}/arg.iou_thres"]),
        multi_label=bool(numbers.get(f"{case}/arg.multi_label", False)),
        class_agnostic=bool(numbers.get(f"{case}/arg.agnostic", False)),
        classes=None if wanted is None else wanted.tolist(),
    )
    assert len(actual) == len(prediction)
    for image, (boxes, score, label) in enumerate(actual):
        expected = torch.from_numpy(numbers[f"{case}/out.{image}"])
        torch.testing.assert_close(boxes, expected[:, :4], rtol=0, atol=1e-3)
        torch.testing.assert_close(score, expected[:, 4], rtol=0, atol=1e-6)
        assert label.tolist() == expected[:, 5].int().tolist()
