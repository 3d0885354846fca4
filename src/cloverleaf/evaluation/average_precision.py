"""Average precision by the COCO protocol, of boxes and of masks, as faster-coco-eval computes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cloverleaf.evaluation.table import DetectionTable, ObjectTable

METRIC_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

Kind = Literal["bbox", "segm"]


@dataclass(frozen=True, slots=True)
class AveragePrecisions:
    """The twelve numbers by `METRIC_NAMES`, and AP and AP50 per class; NaN where undefined.

    With another largest number of detections than 100, ``AR100`` is the recall at that number.
    """

    values: dict[str, float]
    ap: list[float]
    ap50: list[float]


def average_precisions(
    coco: Any, objects: ObjectTable, detections: DetectionTable, kind: Kind, max_detections: Sequence[int]
) -> AveragePrecisions:
    """Judge detections by boxes or by masks.

    Args:
        coco: from `coco_api`, with masks where ``kind`` is ``segm``.
        objects: the ground truth that it was made of.
        detections: with segmentations where ``kind`` is ``segm``.
        kind: what overlaps are measured of. With masks an object's size class is that of its area in the ground truth,
            and a detection's that of its mask.
        max_detections: per image and class, three ascending numbers.
    """
    ids = objects.category_ids
    if not ids or not len(objects.image_ids):
        undefined = [math.nan] * len(ids)
        return AveragePrecisions(dict.fromkeys(METRIC_NAMES, math.nan), undefined, undefined)
    from faster_coco_eval import COCOeval_faster

    rows = detections.to_rows(masks=kind == "segm")
    if kind == "segm":
        for row in rows:
            del row["bbox"]  # else the library takes the box's area for the mask's
    results = coco.loadRes(rows)
    judge = COCOeval_faster(coco, results, kind, print_function=_silent)
    judge.params.maxDets = list(max_detections)
    judge.evaluate()
    judge.accumulate()
    precision = np.asarray(judge.eval["precision"])  # (T, R, K, A, M), -1 where undefined
    recall = np.asarray(judge.eval["recall"])  # (T, K, A, M)
    every = precision[..., 0, -1]
    numbers = [every, every[:1], every[5:6], *(precision[..., area, -1] for area in (1, 2, 3))]
    numbers += [recall[..., 0, m] for m in range(3)] + [recall[..., area, -1] for area in (1, 2, 3)]
    column = {category_id: k for k, category_id in enumerate(sorted(ids))}
    return AveragePrecisions(
        values={name: _defined_mean(number) for name, number in zip(METRIC_NAMES, numbers, strict=True)},
        ap=[_defined_mean(every[:, :, column[category_id]]) for category_id in ids],
        ap50=[_defined_mean(every[:1, :, column[category_id]]) for category_id in ids],
    )


def coco_api(ground_truth: Mapping[str, Any], objects: ObjectTable, *, masks: bool = False) -> Any:
    """The ground truth as the metric library wants it, without what is not judged.

    Args:
        ground_truth: a COCO dictionary; it is not changed.
        objects: the same as arrays.
        masks: keep segmentations; an object without one is taken to fill its box.
    """
    from faster_coco_eval import COCO

    known_images, known_categories = set(objects.image_ids.tolist()), set(objects.category_ids)
    annotations = [
        {
            "image_id": int(row["image_id"]),
            "category_id": row["category_id"],
            "bbox": [float(value) for value in row["bbox"]],
            "area": float(row["area"]) if row.get("area") is not None else float(row["bbox"][2] * row["bbox"][3]),
            "iscrowd": int(row.get("iscrowd", 0)),
            **({"segmentation": row.get("segmentation") or _box_ring(row["bbox"])} if masks else {}),
        }
        for row in ground_truth.get("annotations", [])
        if row["image_id"] in known_images and row["category_id"] in known_categories
    ]
    for number, row in enumerate(annotations, start=1):
        row["id"] = number
    categories = [{"id": i, "name": name} for i, name in zip(objects.category_ids, objects.class_names, strict=True)]
    sizes = {
        image["id"]: {key: image[key] for key in ("height", "width") if key in image}
        for image in ground_truth.get("images", [])
    }
    images = [{"id": image_id, **sizes.get(image_id, {})} for image_id in objects.image_ids.tolist()]
    return COCO({"images": images, "categories": categories, "annotations": annotations}, print_function=_silent)


def _box_ring(bbox: Sequence[float]) -> list[list[float]]:
    x, y, width, height = (float(value) for value in bbox)
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def _silent(*_: object) -> None:
    """Takes the place of print."""


def _defined_mean(values: npt.NDArray[Any]) -> float:
    """Mean of the values above -1 (COCO's mark for undefined), NaN where there are none."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else math.nan
