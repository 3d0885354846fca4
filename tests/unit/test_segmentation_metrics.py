"""Mask AP against pycocotools, IoU of pixels against hand-made numbers."""

from __future__ import annotations

import contextlib
import io
import json
import math
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cloverleaf.errors import DataError
from cloverleaf.evaluation.average_precision import METRIC_NAMES
from cloverleaf.evaluation.instances import InstanceEvaluator
from cloverleaf.evaluation.semantic import SemanticEvaluator


def run_lengths(pixels: np.ndarray) -> dict[str, Any]:
    found = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def rectangle(left: int, top: int, width: int, height: int, side: int = 128) -> np.ndarray:
    pixels = np.zeros((side, side), bool)
    pixels[top : top + height, left : left + width] = True
    return pixels


def annotation(number: int, pixels: np.ndarray, image: int = 1, category: int = 1, **more: Any) -> dict[str, Any]:
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
    return {"id": number, "image_id": image, "category_id": category, "bbox": [float(v) for v in box],
            "area": float(pixels.sum()), "iscrowd": 0, "segmentation": run_lengths(pixels), **more}  # fmt: skip


def truth(annotations: list[dict[str, Any]], images: int = 1, side: int = 128) -> dict[str, Any]:
    return {
        "images": [{"id": k + 1, "height": side, "width": side} for k in range(images)],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}], "annotations": annotations,
    }  # fmt: skip


def found(row: dict[str, Any], score: float, pixels: np.ndarray | None = None) -> dict[str, Any]:
    keys = ("image_id", "category_id", "bbox", "segmentation")
    return {**{key: row[key] for key in keys}, "score": score,
            **({} if pixels is None else {"segmentation": run_lengths(pixels)})}  # fmt: skip


def test_masks_are_judged_by_masks_and_boxes_by_boxes() -> None:
    """A box that fits with a mask of 60 % IoU is right at IoU 0.50, 0.55 and 0.60 only, if masks are judged."""
    whole = rectangle(10, 10, 50, 20)
    evaluator = InstanceEvaluator(truth([annotation(1, whole)]))
    evaluator.update([found(annotation(1, whole), 0.9, rectangle(10, 10, 30, 20))])
    metrics = evaluator.compute()
    assert metrics.boxes["AP"] == pytest.approx(1) and metrics.masks["AP"] == pytest.approx(0.3)
    assert metrics.masks["AP50"] == pytest.approx(1) and metrics.masks["AP75"] == 0
    assert metrics.fitness == metrics.masks["AP"] and metrics.mask_ap[0] == metrics.fitness
    assert math.isnan(metrics.mask_ap[1])
    content = json.loads(json.dumps(metrics.to_json(), allow_nan=False))
    assert content["mask_AP"] == pytest.approx(0.3) and content["AP"] == pytest.approx(1)
    assert content["classes"][0]["mask_AP50"] == pytest.approx(1) and content["classes"][1]["mask_AP"] is None


def test_more_detections_count_when_asked_for() -> None:
    cells = [rectangle(8 * (k % 16), 8 * (k // 16), 6, 6) for k in range(150)]
    rows = [annotation(k + 1, pixels) for k, pixels in enumerate(cells)]
    for most, recall in ((100, 100 / 150), (150, 1.0)):
        evaluator = InstanceEvaluator(truth(rows), max_detections=(1, 10, most))
        evaluator.update([found(row, 0.9) for row in rows])
        metrics = evaluator.compute()
        assert metrics.masks["AR100"] == pytest.approx(recall) and metrics.max_detections == most


@pytest.mark.parametrize("seed", [0, 1])
def test_random_masks_against_pycocotools(seed: int) -> None:
    """Run lengths, polygons and crowds, all sizes; the twelve numbers of the masks."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    detections: list[dict[str, Any]] = []
    for image in (1, 2, 3):
        for _ in range(12):
            left, top = rng.integers(0, 80, 2)
            width, height = rng.integers(4, 48, 2)
            pixels = rectangle(left, top, width, height) & (rng.random((128, 128)) < 0.95)
            row = annotation(len(rows) + 1, pixels, image, int(rng.integers(1, 3)), iscrowd=int(rng.random() < 0.1))
            if rng.random() < 0.3 and not row["iscrowd"]:
                x, y, w, h = row["bbox"]
                row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            rows.append(row)
            shifted = np.roll(pixels, rng.integers(-4, 5, 2), (0, 1)) | rectangle(left, top, width // 2, height)
            detections.append(found(annotation(1, shifted, image, row["category_id"]), float(rng.random())))
    content = truth(rows, images=3)
    evaluator = InstanceEvaluator(content)
    evaluator.update(detections)
    ours = evaluator.compute().masks
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = json.loads(json.dumps(content))
        coco.createIndex()
        results = coco.loadRes([{k: v for k, v in row.items() if k != "bbox"} for row in detections])
        judge = COCOeval(coco, results, "segm")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert 0.1 < ours["AP"] < 0.9
    np.testing.assert_allclose([np.nan_to_num(ours[name], nan=-1) for name in METRIC_NAMES], judge.stats, atol=1e-9)


def test_masks_are_required_and_nothing_found_is_zero() -> None:
    row = annotation(1, rectangle(3, 3, 9, 9))
    evaluator = InstanceEvaluator(truth([row]))
    assert evaluator.compute().masks["AP"] == 0
    bare = {key: value for key, value in found(row, 0.5).items() if key != "segmentation"}
    with pytest.raises(DataError, match="no masks"):
        evaluator.update([bare])
    evaluator.reset()
    evaluator.update([found(row, 0.5)])
    assert evaluator.compute().masks["AP"] == pytest.approx(1)
    unmasked = InstanceEvaluator(truth([{**row, "segmentation": []}]))  # an object without mask fills its box
    unmasked.update([found(row, 0.5)])
    assert unmasked.compute().masks["AP"] == pytest.approx(1)


def test_pixels_by_hand() -> None:
    true = np.array([[0, 0, 1, 1], [0, 2, 2, 255]])
    called = np.array([[0, 1, 1, 1], [0, 2, 0, 2]])
    evaluator = SemanticEvaluator(["background", "a", "b", "nowhere"])
    evaluator.update(called, true)
    metrics = evaluator.compute()
    np.testing.assert_allclose(metrics.iou, [2 / 4, 2 / 3, 1 / 2, np.nan])
    np.testing.assert_allclose(metrics.accuracy, [2 / 3, 1, 1 / 2, np.nan])
    assert metrics["mIoU"] == pytest.approx((1 / 2 + 2 / 3 + 1 / 2) / 3) == metrics.fitness
    assert metrics["mAcc"] == pytest.approx((2 / 3 + 1 + 1 / 2) / 3)
    assert metrics["pixel_accuracy"] == pytest.approx(5 / 7)
    evaluator.update(np.full((1, 3), 3, np.uint8), np.zeros((1, 3), np.uint8))  # called where it is nowhere: IoU 0
    assert evaluator.compute().iou[3] == 0 and math.isnan(evaluator.compute().accuracy[3])
    content = json.loads(json.dumps(evaluator.compute().to_json(), allow_nan=False))
    assert content["images"] == 2 and content["pixels"] == 10 and content["classes"][3]["accuracy"] is None
    evaluator.reset()
    assert evaluator.compute().fitness == 0 and math.isnan(evaluator.compute()["mIoU"])


def test_pixels_in_two_halves_are_the_whole() -> None:
    rng = np.random.default_rng(0)
    true, called = rng.integers(0, 5, (40, 30)), rng.integers(0, 5, (40, 30))
    one, two = SemanticEvaluator("abcde"), SemanticEvaluator("abcde")
    one.update(called, true)
    two.update(called[:13], true[:13])
    two.update(called[13:], true[13:])
    assert one.compute().values == two.compute().values
    both = [np.sum((true == k) & (called == k)) / np.sum((true == k) | (called == k)) for k in range(5)]
    assert one.compute()["mIoU"] == pytest.approx(np.mean(both))


@pytest.mark.parametrize(
    ("called", "true", "says"),
    [(np.zeros((2, 2), int), np.zeros((2, 3), int), "size"), (np.full((2, 2), 7), np.zeros((2, 2), int), "class 7")],
)
def test_maps_that_cannot_be_judged(called: np.ndarray, true: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        SemanticEvaluator("ab").update(called, true)
