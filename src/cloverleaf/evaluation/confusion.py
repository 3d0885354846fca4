"""Confusion matrix of a detector, with the background as one more class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cloverleaf.evaluation.matching import equal_key_pairs, match_one_to_one, on_crowd, overlap
from cloverleaf.evaluation.table import DetectionTable, IntArray, ObjectTable


@dataclass(frozen=True, slots=True)
class ConfusionMatrix:
    """What each object was taken for.

    Attributes:
        counts: ``(K + 1, K + 1)`` int64; ``counts[i, j]`` objects of class i were detected as class j. Row K holds
            detections where there is no object, column K the objects that were missed.
        class_names: K names.
        confidence: detections scored lower do not count.
        iou: smallest overlap of a detection with the object it is matched to.
    """

    counts: IntArray
    class_names: tuple[str, ...]
    confidence: float
    iou: float

    def to_json(self) -> dict[str, Any]:
        """Plain lists; rows are true classes, columns detected ones, ``background`` last in both."""
        return {
            "classes": [*self.class_names, "background"],
            "rows": "true",
            "columns": "detected",
            "confidence": self.confidence,
            "iou": self.iou,
            "counts": self.counts.tolist(),
        }


def confusion_matrix(
    objects: ObjectTable, detections: DetectionTable, *, confidence: float = 0.25, iou: float = 0.45
) -> ConfusionMatrix:
    """Match detections to objects of any class, best overlap first, each used once, and count the pairs of classes.

    Detections that are matched to nothing and lie on a crowd region are not counted.
    """
    size = len(objects.category_ids) + 1
    image_index, labels = objects.locate(detections)
    kept = np.flatnonzero(detections.scores > confidence)
    image_index, labels, boxes = image_index[kept], labels[kept], detections.boxes_xyxy[kept]
    real = np.flatnonzero(~objects.crowd)
    blocks = []
    for rows, columns in equal_key_pairs(image_index, objects.image_index[real]):
        ious = overlap(boxes[rows], objects.boxes_xyxy[real[columns]])
        good = ious > iou
        blocks.append((rows[good], columns[good], ious[good]))
    found, hit = match_one_to_one(*(np.concatenate([block[i] for block in blocks]) for i in range(3)))

    true = np.concatenate([objects.labels[real[hit]], np.delete(objects.labels[real], hit)])
    detected = np.concatenate([labels[found], np.full(len(real) - len(hit), size - 1)])
    stray = np.setdiff1d(np.arange(len(kept)), found)
    stray = stray[~on_crowd(objects, image_index, objects.image_index, boxes, iou)[stray]]
    true = np.concatenate([true, np.full(len(stray), size - 1)])
    detected = np.concatenate([detected, labels[stray]])
    counts = np.bincount((true * size + detected).astype(np.int64), minlength=size * size).reshape(size, size)
    return ConfusionMatrix(counts.astype(np.int64), objects.class_names, confidence, iou)
