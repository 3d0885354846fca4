"""Detections and objects of a whole dataset as flat arrays: what the metrics work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.errors import DataError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
RunLengths = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DetectionTable:
    """Detections of many images in the form of COCO results.

    Attributes:
        image_ids: ``(n,)`` int64.
        category_ids: ``(n,)`` int64, ids of the dataset (not labels).
        boxes_xywh: ``(n, 4)`` float64, pixels of the original image, left, top, width, height.
        scores: ``(n,)`` float64.
        segmentations: n COCO run-length masks (``size`` and ``counts``, as text), or None without masks.
    """

    image_ids: IntArray
    category_ids: IntArray
    boxes_xywh: FloatArray
    scores: FloatArray
    segmentations: tuple[RunLengths, ...] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    @classmethod
    def empty(cls) -> DetectionTable:
        """No detections."""
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0))

    @classmethod
    def from_xyxy(
        cls,
        image_ids: IntArray,
        category_ids: IntArray,
        boxes_xyxy: npt.NDArray[Any],
        scores: npt.NDArray[Any],
        segmentations: Sequence[RunLengths] | None = None,
    ) -> DetectionTable:
        """From corner boxes ``(n, 4)``; rounds like the published evaluation: boxes to 3 decimals, scores to 5."""
        boxes = np.asarray(boxes_xyxy, np.float64).reshape(-1, 4)
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        return cls(
            np.asarray(image_ids, np.int64),
            np.asarray(category_ids, np.int64),
            np.round(xywh, 3),
            np.asarray(scores, np.float64).round(5),
            None if segmentations is None else tuple(segmentations),
        )

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> DetectionTable:
        """From COCO results rows (``image_id``, ``category_id``, ``bbox``, ``score``).

        Raises:
            DataError: a row lacks a key or its box has not four numbers.
        """
        try:
            return cls(
                np.array([row["image_id"] for row in rows], np.int64),
                np.array([row["category_id"] for row in rows], np.int64),
                np.array([row["bbox"] for row in rows], np.float64).reshape(len(rows), 4),
                np.array([row["score"] for row in rows], np.float64),
                tuple(row["segmentation"] for row in rows) if rows and "segmentation" in rows[0] else None,
            )
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(
                what="these are not COCO results rows",
                why=f"{type(error).__name__}: {error}",
                fix="every row needs image_id, category_id, bbox (left, top, width, height) and score",
            ) from error

    @classmethod
    def concatenate(cls, tables: Sequence[DetectionTable]) -> DetectionTable:
        """All rows of all tables, in order; with masks where all of them have masks."""
        tables = [table for table in tables if len(table)]
        if not tables:
            return cls.empty()
        masked = [table.segmentations for table in tables if table.segmentations is not None]
        return cls(
            np.concatenate([table.image_ids for table in tables]),
            np.concatenate([table.category_ids for table in tables]),
            np.concatenate([table.boxes_xywh for table in tables]),
            np.concatenate([table.scores for table in tables]),
            tuple(chain.from_iterable(masked)) if len(masked) == len(tables) else None,
        )

    def require_masks(self) -> DetectionTable:
        """The table itself.

        Raises:
            DataError: it has detections, but no masks.
        """
        if len(self) and self.segmentations is None:
            raise DataError(
                what="these detections have no masks",
                why="their rows have no `segmentation`",
                fix="give a COCO run length for every row",
            )
        return self

    def to_rows(self, *, masks: bool = True) -> list[dict[str, Any]]:
        """COCO results rows, ready for JSON.

        Args:
            masks: write ``segmentation`` too, where there are masks.
        """
        columns = (self.image_ids.tolist(), self.category_ids.tolist(), self.boxes_xywh.tolist(), self.scores.tolist())
        rows: list[dict[str, Any]] = [
            {"image_id": image, "category_id": category, "bbox": box, "score": score}
            for image, category, box, score in zip(*columns, strict=True)
        ]
        if masks and self.segmentations is not None:
            for row, segmentation in zip(rows, self.segmentations, strict=True):
                row["segmentation"] = segmentation
        return rows

    @property
    def boxes_xyxy(self) -> FloatArray:
        """``(n, 4)`` corners."""
        return np.concatenate([self.boxes_xywh[:, :2], self.boxes_xywh[:, :2] + self.boxes_xywh[:, 2:]], axis=1)


@dataclass(frozen=True, slots=True)
class ObjectTable:
    """Ground truth of many images.

    Attributes:
        image_ids: ``(I,)`` int64, every image, ascending, also those without objects.
        category_ids: ``(K,)`` ids, in the order of the labels.
        class_names: ``(K,)`` names.
        image_index: ``(M,)`` position of each object's image in ``image_ids``.
        labels: ``(M,)`` position of each object's class in ``category_ids``.
        boxes_xyxy: ``(M, 4)`` float64, pixels of the original image.
        crowd: ``(M,)`` bool; a crowd region is no target, and detections on it are not counted against the model.
    """

    image_ids: IntArray
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]
    image_index: IntArray
    labels: IntArray
    boxes_xyxy: FloatArray
    crowd: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def from_coco(cls, ground_truth: Mapping[str, Any]) -> ObjectTable:
        """From a COCO dictionary (``images``, ``categories``, ``annotations``)."""
        image_ids = np.unique(np.array([image["id"] for image in ground_truth.get("images", [])], np.int64))
        categories = ground_truth.get("categories", [])
        ids = tuple(int(category["id"]) for category in categories)
        label_of = {category_id: label for label, category_id in enumerate(ids)}
        known = set(image_ids.tolist())
        rows = [
            row
            for row in ground_truth.get("annotations", [])
            if row["category_id"] in label_of and row["image_id"] in known
        ]
        boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return cls(
            image_ids=image_ids,
            category_ids=ids,
            class_names=tuple(str(category.get("name", category["id"])) for category in categories),
            image_index=np.searchsorted(image_ids, np.array([row["image_id"] for row in rows], np.int64)),
            labels=np.array([label_of[row["category_id"]] for row in rows], np.int64),
            boxes_xyxy=boxes,
            crowd=np.array([bool(row.get("iscrowd", 0)) for row in rows], np.bool_),
        )

    def objects_per_class(self) -> IntArray:
        """``(K,)`` number of objects that are no crowd."""
        return np.bincount(self.labels[~self.crowd], minlength=len(self.category_ids)).astype(np.int64)

    def locate(self, detections: DetectionTable) -> tuple[IntArray, IntArray]:
        """Image index and label ``(n,)`` of every detection.

        Raises:
            DataError: an image id or a category id does not exist in the ground truth.
        """
        categories = np.array(self.category_ids, np.int64)
        order = np.argsort(categories)
        image_index = _positions("image", self.image_ids, detections.image_ids)
        return image_index, order[_positions("category", categories[order], detections.category_ids)].astype(np.int64)


def _positions(kind: str, known: IntArray, wanted: IntArray) -> IntArray:
    """Position of each of ``wanted`` in the ascending ``known``."""
    unknown = np.setdiff1d(wanted, known)
    if len(unknown):
        raise DataError(
            what=f"detections name {len(unknown)} {kind} id(s) that the ground truth does not have",
            why=f"for example {unknown[:5].tolist()}",
            fix="judge the results against the dataset and split they were made on",
        )
    return np.searchsorted(known, wanted).astype(np.int64)
