"""COCO detection metrics: the twelve numbers, average precision per class, and what the plots need."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.evaluation.average_precision import average_precisions, coco_api
from cloverleaf.evaluation.confusion import ConfusionMatrix, confusion_matrix
from cloverleaf.evaluation.curves import Curves, confidence_curves
from cloverleaf.evaluation.matching import claim_targets
from cloverleaf.evaluation.table import DetectionTable, ObjectTable


def finite_or_none(value: float) -> float | None:
    """A number for JSON: null where it is undefined."""
    return float(value) if math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """How one class fares; every number is NaN where the class has no object.

    Attributes:
        name: class name.
        category_id: id in the dataset.
        objects: number of objects that are no crowd.
        ap: average precision over IoU 0.50 to 0.95.
        ap50: average precision at IoU 0.50.
        precision, recall, f1: at the confidence with the best mean F1.
    """

    name: str
    category_id: int
    objects: int
    ap: float
    ap50: float
    precision: float
    recall: float
    f1: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; undefined numbers are null."""
        numbers = {
            "AP": self.ap,
            "AP50": self.ap50,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
        }
        return {
            "name": self.name,
            "category_id": self.category_id,
            "objects": self.objects,
            **{key: finite_or_none(value) for key, value in numbers.items()},
        }


@dataclass(frozen=True, slots=True)
class CocoMetrics:
    """Result of one evaluation. A number that is undefined (no object of that size, of that class, at all) is NaN.

    Attributes:
        values: the twelve COCO numbers by `METRIC_NAMES`.
        per_class: in the order of the dataset's categories.
        precision, recall, f1: means over the classes that have objects, at ``confidence``.
        confidence: the threshold with the best mean F1.
        curves: precision, recall and F1 over the confidence.
        confusion: at confidence 0.25 and IoU 0.45.
        images, objects, detections: how many were judged.
    """

    values: dict[str, float]
    per_class: tuple[ClassMetrics, ...]
    precision: float
    recall: float
    f1: float
    confidence: float
    curves: Curves
    confusion: ConfusionMatrix
    images: int
    objects: int
    detections: int

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    @property
    def fitness(self) -> float:
        """0.1 AP50 + 0.9 AP, by which the best weights of a run are chosen; 0 where undefined."""
        fitness = 0.1 * self.values["AP50"] + 0.9 * self.values["AP"]
        return fitness if math.isfinite(fitness) else 0.0

    def to_dict(self) -> dict[str, float | None]:
        """The numbers of the whole dataset, flat; undefined ones are None."""
        return {
            **{name: finite_or_none(value) for name, value in self.values.items()},
            "precision": finite_or_none(self.precision),
            "recall": finite_or_none(self.recall),
            "f1": finite_or_none(self.f1),
            "confidence": finite_or_none(self.confidence),
            "fitness": self.fitness,
        }

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the curves; undefined numbers are null."""
        return {
            **self.to_dict(),
            "images": self.images,
            "objects": self.objects,
            "detections": self.detections,
            "classes": [metrics.to_json() for metrics in self.per_class],
            "confusion": self.confusion.to_json(),
        }


class CocoEvaluator:
    """Judges detections against one ground truth: `update` with results as they come, then `compute`.

    Args:
        ground_truth: a COCO dictionary (``images``, ``categories``, ``annotations``); it is not changed. Annotation
            ids are replaced (COCO's matching cannot tell an annotation with id 0 from no match), and a missing
            ``area`` is the area of the box.
        max_detections: per image and class, ascending; COCO's are (1, 10, 100).
    """

    def __init__(self, ground_truth: Mapping[str, Any], *, max_detections: Sequence[int] = (1, 10, 100)) -> None:
        if len(max_detections) != 3 or list(max_detections) != sorted(max_detections):
            raise ValueError(f"max_detections must be three ascending numbers, got {max_detections}")
        self._max_detections = list(max_detections)
        self._objects = ObjectTable.from_coco(ground_truth)
        self._coco = coco_api(ground_truth, self._objects)
        self._tables: list[DetectionTable] = []

    @property
    def objects(self) -> ObjectTable:
        """The ground truth as arrays."""
        return self._objects

    def reset(self) -> None:
        """Forget the detections."""
        self._tables = []

    def update(self, rows: Sequence[Mapping[str, Any]] | DetectionTable) -> None:
        """Add detections: COCO results rows or a table of them.

        Raises:
            DataError: malformed rows.
        """
        self._tables.append(rows if isinstance(rows, DetectionTable) else DetectionTable.from_rows(rows))

    def compute(self) -> CocoMetrics:
        """Judge everything since the last `reset`.

        Raises:
            DataError: a detection names an image or a category that the ground truth does not have.
        """
        detections = DetectionTable.concatenate(self._tables)
        objects = self._objects
        _, labels = objects.locate(detections)
        found = average_precisions(self._coco, objects, detections, "bbox", self._max_detections)
        ap, ap50 = found.ap, found.ap50
        correct, counted = claim_targets(objects, detections, iou=0.5)
        counts = objects.objects_per_class()
        curves = confidence_curves(correct[counted, None], detections.scores[counted], labels[counted], counts)
        precision, recall, f1 = curves.at_best("precision"), curves.at_best("recall"), curves.at_best("f1")
        if curves.best is None:  # nothing correct at any threshold; precision of no detection is no merit
            precision = np.where(counts > 0, 0.0, np.nan)
        names = zip(objects.class_names, objects.category_ids, counts.tolist(), strict=True)
        per_class = tuple(
            ClassMetrics(name, category, count, *map(float, (ap[k], ap50[k], precision[k], recall[k], f1[k])))
            for k, (name, category, count) in enumerate(names)
        )
        return CocoMetrics(
            values=found.values,
            per_class=per_class,
            precision=_mean(precision),
            recall=_mean(recall),
            f1=_mean(f1),
            confidence=curves.best_confidence,
            curves=curves,
            confusion=confusion_matrix(objects, detections),
            images=len(objects.image_ids),
            objects=int(counts.sum()),
            detections=len(detections),
        )


def _mean(values: npt.NDArray[Any]) -> float:
    """Mean of the values that are no NaN, NaN where there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else math.nan
