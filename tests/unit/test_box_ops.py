"""Boxes, overlaps and suppression: conversions, limits, and a brute-force greedy suppression."""

import pytest
import torch

from cloverleaf.ops.boxes import box_area, clip_xyxy, cxcywh_to_xyxy, xyxy_to_cxcywh
from cloverleaf.ops.iou import aligned_iou, pairwise_iou
from cloverleaf.ops.nms import batched_nms


def random_boxes(*shape, seed=0, size=100.0):
    rng = torch.Generator().manual_seed(seed)
    centre, half = torch.rand(*shape, 2, generator=rng) * size, 2 + torch.rand(*shape, 2, generator=rng) * size / 4
    return torch.cat((centre - half, centre + half), -1)


def test_conversions():
    boxes = random_boxes(3, 5)
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)
    box = torch.tensor([-3.0, 5.0, 30.0, 99.0])
    assert clip_xyxy(box, (40, 20)).tolist() == [0, 5, 20, 40]
    assert box_area(box).item() == 33 * 94


def test_pairwise_equals_aligned_over_all_pairs():
    first, second = random_boxes(6), random_boxes(4, seed=1)
    pairs = aligned_iou(first[:, None].expand(6, 4, 4), second.expand(6, 4, 4))
    torch.testing.assert_close(pairwise_iou(first, second), pairs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_limits(kind):
    box = torch.tensor([[10.0, 10, 30, 50]])
    assert aligned_iou(box, box, kind).item() == pytest.approx(1, abs=1e-5)
    far = aligned_iou(box, box + 1000, kind).item()
    assert far == pytest.approx(0) if kind == "iou" else -2 <= far < -0.9
    assert aligned_iou(box[:0], box[:0], kind).shape == (0,)


@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_gradients_of_degenerate_boxes_are_finite(kind):
    boxes = torch.tensor([[5.0, 5, 5, 5], [0, 0, 0, 9], [1, 1, 1e4, 1.0001]], requires_grad=True)
    aligned_iou(boxes, torch.tensor([[5.0, 5, 5, 5], [0, 0, 4, 9], [1, 1, 2, 2]]), kind).sum().backward()
    assert torch.isfinite(boxes.grad).all()


def test_pairwise_of_empty_boxes_is_zero():
    assert pairwise_iou(torch.zeros(1, 4), torch.zeros(2, 4)).tolist() == [[0, 0]]


def test_unknown_kind():
    with pytest.raises(ValueError, match="eiou"):
        aligned_iou(torch.zeros(1, 4), torch.zeros(1, 4), "eiou")


def greedy(boxes, scores, *, confidence, iou, multi_label, class_agnostic, classes, max_detections):
    """(row, label) of one image, one candidate at a time."""
    pairs = []
    for row in range(len(boxes)):
        labels = range(scores.shape[1]) if multi_label else [int(scores[row].argmax())]
        pairs += [(row, k) for k in labels if scores[row, k] > confidence and (classes is None or k in classes)]
    pairs.sort(key=lambda pair: -scores[pair].item())
    kept = []
    for row, k in pairs:
        rivals = [r for r, label in kept if class_agnostic or label == k]
        if not rivals or pairwise_iou(boxes[[row]].double(), boxes[rivals].double()).max() <= iou:
            kept.append((row, k))
    return kept[:max_detections]


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("classes", [None, (0, 2)])
def test_nms_equals_brute_force(multi_label, class_agnostic, classes):
    boxes = random_boxes(3, 80)
    scores = torch.rand(3, 80, 4, generator=torch.Generator().manual_seed(2))
    scores[1] = 0
    options = {
        "confidence": 0.3,
        "iou": 0.4,
        "multi_label": multi_label,
        "class_agnostic": class_agnostic,
        "classes": classes,
    }
    results = batched_nms(boxes, scores, **options, max_detections=25)
    for image, (kept, score, label) in enumerate(results):
        expected = greedy(boxes[image], scores[image], **options, max_detections=25)
        assert torch.equal(kept, boxes[image][[row for row, _ in expected]])
        assert label.tolist() == [k for _, k in expected]
        assert score.tolist() == [scores[image][pair].item() for pair in expected]
    assert len(results[0][1]) > 5 and len(results[1][1]) == 0


@pytest.mark.parametrize("count", [4500, 9000])
def test_nms_of_many_candidates_needs_no_more_than_a_prefix(count):
    """Stopping early changes nothing: neither when the prefix suffices nor when it does not."""
    scores = torch.rand(1, count, 1, generator=torch.Generator().manual_seed(3))
    for size in (3000.0, 60.0):  # many survivors; few, so that all candidates have to be looked at
        boxes = random_boxes(1, count, size=size)
        full = batched_nms(boxes, scores, confidence=0.001, iou=0.5, max_detections=count)[0][0]
        assert torch.equal(batched_nms(boxes, scores, confidence=0.001, iou=0.5)[0][0], full[:300])


def test_nms_limits_and_bad_numbers():
    boxes, scores = random_boxes(2, 50, size=10000.0), torch.rand(2, 50, 3)
    scores[0, 7], boxes[0, 8, 2], boxes[0, 9, 0] = torch.nan, torch.inf, torch.nan
    kept, score, label = batched_nms(boxes, scores, confidence=0.0, iou=0.5, multi_label=True, max_candidates=40)[0]
    assert len(kept) == len(score) == len(label) <= 40
    assert torch.isfinite(kept).all() and torch.isfinite(score).all()
    assert label.dtype == torch.int64
    boxes[0, 3], boxes[0, 4, 2], scores[0, 3:5] = boxes[0, 3].roll(2), boxes[0, 4, 0], 2.0  # turned over, and flat
    kept, score, _ = batched_nms(boxes, scores, confidence=0.0, iou=0.5)[0]
    assert (kept[:, 2:] > kept[:, :2]).all() and score.max() < 2
    assert batched_nms(boxes[:, :0], scores[:, :0], confidence=0.1, iou=0.5)[1][0].shape == (0, 4)
