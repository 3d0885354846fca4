"""Metrics: equal to pycocotools, golden curves, hand-made confusion, and the empty cases."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloverleaf.errors import DataError
from cloverleaf.evaluation.average_precision import METRIC_NAMES
from cloverleaf.evaluation.coco import CocoEvaluator
from cloverleaf.evaluation.confusion import confusion_matrix
from cloverleaf.evaluation.curves import confidence_curves
from cloverleaf.evaluation.matching import claim_targets, match_one_to_one
from cloverleaf.evaluation.table import DetectionTable, ObjectTable


def random_ground_truth(seed: int, images: int = 12, crowd: float = 0.1) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    categories = [{"id": i, "name": f"c{i}"} for i in (7, 3, 90, 12)]  # not ascending, with gaps; 12 has no object
    annotations = []
    for image in range(images):
        for _ in range(int(rng.integers(0, 9))):
            left, top = rng.uniform(0, 300, 2).round(2)
            width, height = np.exp(rng.uniform(1.5, 5.5, 2)).round(2)
            annotations.append({
                "id": len(annotations) + 1, "image_id": image * 10, "category_id": int(rng.choice([7, 3, 90])),
                "bbox": [left, top, width, height], "area": float(width * height * rng.uniform(0.5, 1)),
                "iscrowd": int(rng.random() < crowd),
            })  # fmt: skip
    listed = [{"id": i * 10, "width": 640, "height": 480, "file_name": f"{i}.jpg"} for i in range(images)]
    return {"images": listed, "categories": categories, "annotations": annotations}


def noisy_detections(ground_truth: dict[str, Any], seed: int, per_image: int = 25) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    ids = [category["id"] for category in ground_truth["categories"]]
    rows = []
    for row in ground_truth["annotations"]:
        for _ in range(int(rng.integers(0, 4))):
            box = np.array(row["bbox"], float) * np.exp(rng.normal(0, 0.07, 4))
            category = row["category_id"] if rng.random() < 0.8 else int(rng.choice(ids))
            rows.append({"image_id": row["image_id"], "category_id": category, "bbox": box.round(3).tolist()})
    for image in ground_truth["images"]:
        for _ in range(per_image):
            box = [*rng.uniform(0, 300, 2).round(3), *np.exp(rng.uniform(1.5, 5.5, 2)).round(3)]
            rows.append({"image_id": image["id"], "category_id": int(rng.choice(ids)), "bbox": [float(v) for v in box]})
    return [{**row, "score": round(float(rng.random()), 3)} for row in rows]  # three decimals: with ties


def pycocotools_numbers(
    ground_truth: dict[str, Any], rows: list[dict[str, Any]]
) -> tuple[list[float], dict[int, float]]:
    coco_module = pytest.importorskip("pycocotools.coco")
    eval_module = pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = coco_module.COCO()
        coco.dataset = copy.deepcopy(ground_truth)
        coco.createIndex()
        judge = eval_module.COCOeval(coco, coco.loadRes(copy.deepcopy(rows)), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    ap = judge.eval["precision"][:, :, :, 0, -1]
    ids = judge.params.catIds
    per_class = {i: ap[:, :, k][ap[:, :, k] > -1] for k, i in enumerate(ids)}
    return list(judge.stats), {i: float(v.mean()) if v.size else math.nan for i, v in per_class.items()}


def assert_equal_to_pycocotools(ground_truth: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    evaluator = CocoEvaluator(ground_truth)
    evaluator.update(rows[: len(rows) // 2])
    evaluator.update(DetectionTable.from_rows(rows[len(rows) // 2 :]))
    metrics = evaluator.compute()
    expected, per_class = pycocotools_numbers(ground_truth, rows)
    ours = [-1.0 if math.isnan(metrics[name]) else metrics[name] for name in METRIC_NAMES]
    np.testing.assert_allclose(ours, expected, atol=1e-6)
    for row in metrics.per_class:
        np.testing.assert_allclose(row.ap, per_class[row.category_id], atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools_on_random_files(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    ground_truth = random_ground_truth(seed, crowd=0.15 * (seed % 2))
    before = copy.deepcopy(ground_truth)
    assert_equal_to_pycocotools(ground_truth, noisy_detections(ground_truth, seed))
    assert ground_truth == before
    assert capsys.readouterr().out == ""


@pytest.mark.shared_data
def test_equal_to_pycocotools_on_real_ground_truth(shared_data: Path) -> None:
    ground_truth = json.loads((shared_data / "bccd" / "annotations" / "val.json").read_text())
    assert_equal_to_pycocotools(ground_truth, noisy_detections(ground_truth, 5, per_image=150))


@pytest.mark.parametrize("tail", ["published", "unit"])
def test_golden_average_precision(golden: Any, tail: str) -> None:
    expected = golden("yolov7/ap")
    counts = np.bincount(expected["target_cls"], minlength=5)
    curves = confidence_curves(expected["tp"], expected["conf"], expected["pred_cls"], counts, tail=tail)  # type: ignore[arg-type]
    prefix = {"published": "default", "unit": "v5"}[tail]
    np.testing.assert_allclose(curves.ap, expected[f"{prefix}/ap"], atol=1e-9)
    for name in ("precision", "recall", "f1"):
        np.testing.assert_allclose(curves.at_best(name), expected[f"{prefix}/{name}"], atol=1e-9)  # type: ignore[arg-type]


def test_perfect_detections_score_one_everywhere() -> None:
    ground_truth = random_ground_truth(1, crowd=0)
    rows = [
        {"image_id": row["image_id"], "category_id": row["category_id"], "bbox": row["bbox"], "score": 0.9}
        for row in ground_truth["annotations"]
    ]
    evaluator = CocoEvaluator(ground_truth)
    evaluator.update(rows)
    metrics = evaluator.compute()
    assert metrics["AP"] == pytest.approx(1) and metrics.fitness == pytest.approx(1)
    assert (metrics.precision, metrics.recall, metrics.f1) == pytest.approx((1, 1, 1))
    assert 0 <= metrics.confidence < 0.9
    counts = metrics.confusion.counts
    assert counts.sum() == np.trace(counts) == len(rows)
    evaluator.reset()
    assert evaluator.compute()["AP"] == 0


def test_an_annotation_with_id_zero_counts() -> None:
    ground_truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 0, "image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50]}],
    }
    evaluator = CocoEvaluator(ground_truth)
    evaluator.update([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50], "score": 0.5}])
    assert evaluator.compute()["AP"] == pytest.approx(1)


EMPTY = {
    "nothing at all": {"images": [], "categories": [], "annotations": []},
    "no annotations": {"images": [{"id": 1}], "categories": [{"id": 1, "name": "a"}], "annotations": []},
    "no categories": {"images": [{"id": 1}], "categories": []},
}


@pytest.mark.parametrize(("name", "with_rows"), [*((name, False) for name in EMPTY), ("no annotations", True)])
def test_empty_ground_truth_gives_null_not_a_crash(name: str, with_rows: bool) -> None:
    evaluator = CocoEvaluator(EMPTY[name])
    if with_rows:
        evaluator.update([{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.8}])
    metrics = evaluator.compute()
    text = json.dumps(metrics.to_json(), allow_nan=False)
    assert json.loads(text)["AP"] is None and json.loads(text)["precision"] is None
    assert metrics.fitness == 0
    assert metrics.confusion.counts.sum() == int(with_rows)


def test_missed_objects_give_zeros() -> None:
    evaluator = CocoEvaluator(random_ground_truth(2))
    metrics = evaluator.compute()
    assert (metrics["AP"], metrics.precision, metrics.recall, metrics.f1) == (0, 0, 0, 0)
    assert metrics.to_json()["confidence"] is None
    assert math.isnan(metrics.per_class[3].ap)  # the class without objects
    assert metrics.confusion.counts[:, -1].sum() == metrics.objects


def test_unknown_ids_and_malformed_rows_are_refused() -> None:
    good = {"image_id": 0, "category_id": 7, "bbox": [0, 0, 1, 1], "score": 0.5}
    for change, message in (({"image_id": 5}, "image"), ({"category_id": 1}, "category")):
        evaluator = CocoEvaluator(random_ground_truth(0))
        evaluator.update([{**good, **change}])
        with pytest.raises(DataError, match=f"{message} id"):
            evaluator.compute()
    with pytest.raises(DataError, match="not COCO results"):
        evaluator.update([{**good, "bbox": [1, 2, 3]}])
    with pytest.raises(DataError, match="score"):
        evaluator.update([{key: value for key, value in good.items() if key != "score"}])


def table(rows: list[tuple[int, int, list[float], float]]) -> DetectionTable:
    images, categories, boxes, scores = zip(*rows)
    return DetectionTable.from_xyxy(np.array(images), np.array(categories), np.array(boxes), np.array(scores))


def two_cells() -> ObjectTable:
    """Image 1: a (0..10), b (20..30), and a crowd of a at 100..200. Image 2: empty."""
    boxes = [([0, 0, 10, 10], 1, 0), ([20, 0, 10, 10], 2, 0), ([100, 100, 100, 100], 1, 1)]
    return ObjectTable.from_coco({
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [{"id": i + 1, "image_id": 1, "category_id": c, "bbox": b, "iscrowd": w}
                        for i, (b, c, w) in enumerate(boxes)],
    })  # fmt: skip


def test_matching_and_confusion_on_a_written_example() -> None:
    objects = two_cells()
    detections = table([
        (1, 1, [0, 0, 10, 9], 0.8),        # finds a, but a better-scored one claims it
        (1, 1, [0, 0, 10, 10], 0.9),       # finds a
        (1, 1, [20, 0, 30, 10], 0.7),      # b taken for a
        (1, 2, [60, 60, 70, 70], 0.6),     # stray b
        (1, 1, [110, 110, 120, 120], 0.5),  # on the crowd of a: not counted
        (1, 2, [110, 110, 120, 120], 0.5),  # another class on the crowd of a
        (2, 2, [20, 0, 30, 10], 0.3),      # b in the empty image
        (2, 2, [20, 0, 30, 10], 0.2),      # the same, below the confidence
    ])  # fmt: skip
    correct, counted = claim_targets(objects, detections)
    assert correct.tolist() == [False, True] + [False] * 6
    assert counted.tolist() == [True] * 4 + [False] + [True] * 3
    matrix = confusion_matrix(objects, detections)
    assert matrix.counts.tolist() == [[1, 0, 0], [1, 0, 0], [1, 2, 0]]
    assert matrix.to_json()["classes"] == ["a", "b", "background"]


def test_one_to_one_matching_is_the_greedy_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        quality = rng.random((7, 5))
        rows, columns = np.nonzero(quality > 0.3)
        got = match_one_to_one(rows, columns, quality[rows, columns])
        used_rows: set[int] = set()
        used_columns: set[int] = set()
        expected = set()
        for value, r, c in sorted(zip(quality[rows, columns], rows, columns), reverse=True):
            if value and r not in used_rows and c not in used_columns:
                used_rows.add(r)
                used_columns.add(c)
                expected.add((int(r), int(c)))
        assert set(zip(*map(np.ndarray.tolist, got))) == expected


def test_a_hundred_thousand_detections_are_matched_in_seconds() -> None:
    import time

    ground_truth = random_ground_truth(3, images=400)
    objects = ObjectTable.from_coco(ground_truth)
    detections = DetectionTable.from_rows(noisy_detections(ground_truth, 3, per_image=250))
    start = time.perf_counter()
    correct, _ = claim_targets(objects, detections)
    confusion_matrix(objects, detections)
    assert correct.any() and time.perf_counter() - start < 10
