"""The suppression inside exported files keeps what `batched_nms` keeps, for every image of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cloverleaf.deploy.extras import require
from cloverleaf.deploy.suppression import Suppression, suppression_graph
from cloverleaf.errors import ConfigError, MissingExtraError
from cloverleaf.ops.nms import batched_nms

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def crowd(batch: int, rows: int, classes: int, *, ties: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes in heaps; with ties many boxes and scores are equal."""
    generator = torch.Generator().manual_seed(batch + rows)
    centre = 100 * torch.rand(batch, rows, 2, generator=generator)
    half = 2 + 15 * torch.rand(batch, rows, 2, generator=generator)
    scores = torch.rand(batch, rows, classes, generator=generator) ** 3
    if ties:
        centre, half, scores = centre.round(), half.round(), (20 * scores).round() / 20
    return torch.cat((centre - half, centre + half), -1), scores


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    ("batch", "rows", "classes", "confidence", "iou", "most"),
    [
        (1, 500, 3, 0.25, 0.45, 300),
        (3, 500, 3, 0.25, 0.45, 20),
        (3, 700, 5, 0.0, 0.6, 90),
        (2, 400, 1, 0.9, 1.0, 300),
        (2, 10, 1, 1e-5, 0.45, 300),  # more places than predictions
        (4, 1500, 80, 0.001, 0.65, 300),
    ],
)
def test_the_graph_keeps_what_batched_nms_keeps(
    batch: int, rows: int, classes: int, confidence: float, iou: float, most: int, ties: bool
) -> None:
    boxes, scores = crowd(batch, rows, classes, ties=ties)
    if batch > 1:
        scores[1] = 0  # an image without a detection
    if batch > 2:  # what is not finite is never detected
        boxes[2, 3], boxes[2, 4, 0], scores[2, 5, -1] = float("nan"), float("inf"), float("nan")
        boxes[2, 6], boxes[2, 7, 3] = boxes[2, 6].roll(2), boxes[2, 7, 1]  # nor what is turned over or flat
        scores[2, 6:8] = 0.99
    settings = Suppression(confidence=confidence, iou=iou, max_detections=most)
    limit = 100 if most < 100 else 30000
    graph = suppression_graph(settings, classes, ir_version=10, opset=18, max_candidates=limit)
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"dense_boxes": boxes.numpy(), "dense_scores": scores.numpy()}
    found_boxes, found_scores, found_labels, counts = session.run(None, feed)
    assert found_boxes.shape == (batch, most, 4) and found_labels.dtype == counts.dtype == np.int64
    expected = batched_nms(boxes, scores, confidence=confidence, iou=iou, max_detections=most, max_candidates=limit)
    assert counts.tolist() == [len(kept) for _, kept, _ in expected] and counts[0] > 0
    for image, (n, (some_boxes, some_scores, some_labels)) in enumerate(zip(counts, expected)):
        np.testing.assert_array_equal(found_boxes[image, :n], some_boxes)
        np.testing.assert_array_equal(found_scores[image, :n], some_scores)
        np.testing.assert_array_equal(found_labels[image, :n], some_labels)
        assert not found_boxes[image, n:].any() and not found_scores[image, n:].any()
        assert (found_labels[image, n:] == -1).all()


@pytest.mark.parametrize(
    "bad", [{"confidence": 1}, {"confidence": -0.1}, {"iou": 0}, {"max_detections": 0}, {"max_detections": 40000}]
)
def test_thresholds_out_of_range_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Suppression(**bad)  # type: ignore[arg-type]


def test_a_missing_package_names_the_extra() -> None:
    assert require("json", "math").__name__ == "json"
    with pytest.raises(MissingExtraError, match=r"cloverleaf\[deploy\]"):
        require("json", "no_such_package")
