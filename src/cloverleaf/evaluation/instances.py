"""Instance segmentation: COCO's numbers of masks beside those of boxes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloverleaf.evaluation.average_precision import average_precisions, coco_api
from cloverleaf.evaluation.coco import ClassMetrics, CocoEvaluator, CocoMetrics, finite_or_none
from cloverleaf.evaluation.table import DetectionTable, ObjectTable


@dataclass(frozen=True, slots=True)
class InstanceMetrics:
    """Result of one evaluation. A number that is undefined is NaN.

    Attributes:
        boxes: everything about the boxes; precision, recall and the confusion matrix are theirs too.
        masks: the twelve COCO numbers of the masks, by the same names.
        mask_ap, mask_ap50: per class, in the order of the dataset's categories.
        max_detections: the most detections per image and class that count.
    """

    boxes: CocoMetrics
    masks: dict[str, float]
    mask_ap: tuple[float, ...]
    mask_ap50: tuple[float, ...]
    max_detections: int

    def __getitem__(self, name: str) -> float:
        """By the names of `to_dict`: ``mask_AP`` is the masks', ``AP`` the boxes'."""
        return self.masks[name.removeprefix("mask_")] if name.startswith("mask_") else self.boxes[name]

    @property
    def per_class(self) -> tuple[ClassMetrics, ...]:
        """What the boxes say of each class."""
        return self.boxes.per_class

    @property
    def fitness(self) -> float:
        """AP of the masks, by which the best weights of a run are chosen; 0 where undefined."""
        return self.masks["AP"] if math.isfinite(self.masks["AP"]) else 0.0

    def to_dict(self) -> dict[str, float | None]:
        """The numbers of the whole dataset, flat, those of the masks as ``mask_AP`` and so on; undefined ones None."""
        masks = {f"mask_{name}": finite_or_none(value) for name, value in self.masks.items()}
        return {**masks, **self.boxes.to_dict(), "fitness": self.fitness}

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the curves; undefined numbers are null."""
        content = {**self.boxes.to_json(), **self.to_dict()}
        rows = zip(content["classes"], self.mask_ap, self.mask_ap50, strict=True)
        content["classes"] = [
            {**row, "mask_AP": finite_or_none(ap), "mask_AP50": finite_or_none(ap50)} for row, ap, ap50 in rows
        ]
        return content


class InstanceEvaluator:
    """Judges instances against one ground truth: `update` with results as they come, then `compute`.

    Args:
        ground_truth: as for `CocoEvaluator`, with ``segmentation`` (run lengths, taken exactly, or polygons) in the
            annotations and ``height`` and ``width`` in the images; an object without segmentation fills its box.
        max_detections: per image and class, ascending; COCO's are (1, 10, 100).
    """

    def __init__(self, ground_truth: Mapping[str, Any], *, max_detections: Sequence[int] = (1, 10, 100)) -> None:
        self._boxes = CocoEvaluator(ground_truth, max_detections=max_detections)
        self._coco = coco_api(ground_truth, self._boxes.objects, masks=True)
        self._max_detections = tuple(max_detections)
        self._tables: list[DetectionTable] = []

    @property
    def objects(self) -> ObjectTable:
        """The ground truth as arrays."""
        return self._boxes.objects

    def reset(self) -> None:
        """Forget the detections."""
        self._tables = []
        self._boxes.reset()

    def update(self, rows: Sequence[Mapping[str, Any]] | DetectionTable) -> None:
        """Add detections with masks: COCO results rows or a table of them.

        Raises:
            DataError: malformed rows, or rows without ``segmentation``.
        """
        table = rows if isinstance(rows, DetectionTable) else DetectionTable.from_rows(rows)
        self._tables.append(table.require_masks())
        self._boxes.update(table)

    def compute(self) -> InstanceMetrics:
        """Judge everything since the last `reset`.

        Raises:
            DataError: a detection names an image or a category that the ground truth does not have.
        """
        boxes = self._boxes.compute()
        found = average_precisions(
            self._coco, self.objects, DetectionTable.concatenate(self._tables), "segm", self._max_detections
        )
        return InstanceMetrics(boxes, found.values, tuple(found.ap), tuple(found.ap50), self._max_detections[-1])
