"""Which detection finds which object: vectorised over the whole dataset."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.evaluation.table import DetectionTable, FloatArray, IntArray, ObjectTable

BoolArray = npt.NDArray[np.bool_]
_PAIRS_AT_ONCE = 4_000_000


def equal_key_pairs(key_a: IntArray, key_b: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
    """All pairs (index into a, index into b) with equal keys, in blocks of bounded size, ordered by a, then by b."""
    order = np.argsort(key_b, kind="stable")
    ordered = key_b[order]
    start = np.searchsorted(ordered, key_a, side="left")
    count = np.searchsorted(ordered, key_a, side="right") - start
    block = np.cumsum(count) // _PAIRS_AT_ONCE
    for rows in np.split(np.arange(len(key_a)), np.flatnonzero(np.diff(block)) + 1):
        counts = count[rows]
        total = int(counts.sum())
        within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
        yield np.repeat(rows, counts), order[np.repeat(start[rows], counts) + within]


def overlap(a_xyxy: FloatArray, b_xyxy: FloatArray, over_crowd: bool = False) -> FloatArray:
    """IoU of aligned boxes ``(n, 4)`` -> ``(n,)`` in [0, 1]; ``over_crowd``: the share of ``a`` covered by ``b``."""
    sides = np.minimum(a_xyxy[:, 2:], b_xyxy[:, 2:]) - np.maximum(a_xyxy[:, :2], b_xyxy[:, :2])
    intersection = np.prod(np.clip(sides, 0, None), axis=1)
    area_a = np.prod(a_xyxy[:, 2:] - a_xyxy[:, :2], axis=1)
    area_b = np.prod(b_xyxy[:, 2:] - b_xyxy[:, :2], axis=1)
    whole = area_a if over_crowd else area_a + area_b - intersection
    return np.divide(intersection, whole, out=np.zeros_like(intersection), where=whole > 0)


def first_of_each(values: npt.NDArray[Any]) -> BoolArray:
    """``(n,)`` -> mask of the first occurrence of every value."""
    mask = np.zeros(len(values), bool)
    mask[np.unique(values, return_index=True)[1]] = True
    return mask


def claim_targets(objects: ObjectTable, detections: DetectionTable, iou: float = 0.5) -> tuple[BoolArray, BoolArray]:
    """The published built-in metric: every detection takes its best-overlapping object of its class.

    Of the detections that take one object with an IoU above ``iou`` the best-scored is correct, the others are wrong.

    Returns:
        (correct ``(n,)``, counted ``(n,)``); detections that lie on a crowd region of their class and hit nothing
        are not counted.
    """
    image_index, labels = objects.locate(detections)
    boxes = detections.boxes_xyxy
    num_classes = max(len(objects.category_ids), 1)
    keys = image_index * num_classes + labels
    object_keys = objects.image_index * num_classes + objects.labels
    real = np.flatnonzero(~objects.crowd)

    best = np.full(len(detections), -1, np.int64)
    for rows, columns in equal_key_pairs(keys, object_keys[real]):
        ious = overlap(boxes[rows], objects.boxes_xyxy[real[columns]])
        order = np.lexsort((-ious, rows))
        order = order[first_of_each(rows[order])]
        order = order[ious[order] > iou]
        best[rows[order]] = columns[order]

    correct = np.zeros(len(detections), bool)
    by_score = np.argsort(-detections.scores, kind="stable")
    claiming = by_score[best[by_score] >= 0]
    correct[claiming[first_of_each(best[claiming])]] = True
    return correct, correct | ~on_crowd(objects, keys, object_keys, boxes, iou)


def on_crowd(objects: ObjectTable, keys: IntArray, object_keys: IntArray, boxes: FloatArray, iou: float) -> BoolArray:
    """``(n,)`` whether a crowd region with the same key covers more than ``iou`` of a box."""
    crowd = np.flatnonzero(objects.crowd)
    covered = np.zeros(len(keys), bool)
    if len(crowd):
        for rows, columns in equal_key_pairs(keys, object_keys[crowd]):
            share = overlap(boxes[rows], objects.boxes_xyxy[crowd[columns]], over_crowd=True)
            covered[rows[share > iou]] = True
    return covered


def match_one_to_one(rows: IntArray, columns: IntArray, quality: FloatArray) -> tuple[IntArray, IntArray]:
    """Greedy matching of pairs by descending quality: each row and each column is used at most once.

    Works in rounds: a pair that is the best left of both its row and its column is certain to be chosen.

    Returns:
        The chosen (rows, columns).
    """
    order = np.argsort(-quality, kind="stable")
    rows, columns = rows[order], columns[order]
    chosen_rows, chosen_columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    while len(rows):
        certain = first_of_each(rows) & first_of_each(columns)
        chosen_rows.append(rows[certain])
        chosen_columns.append(columns[certain])
        left = ~(np.isin(rows, rows[certain]) | np.isin(columns, columns[certain]))
        rows, columns = rows[left], columns[left]
    return np.concatenate(chosen_rows), np.concatenate(chosen_columns)
