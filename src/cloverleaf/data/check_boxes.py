"""The linter's look at the labels of one image."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cloverleaf.data.records import Fault, ImageRecord, ObjectRecord

NEAR_IOU = 0.8
_SLACK = 0.5  # pixels that a box may leave the image by rounding
_TINY = 2.0  # pixels


def check_objects(record: ImageRecord, size_hw: tuple[int, int] | None, names: tuple[str, ...]) -> Iterator[Fault]:
    """Faults of an image's boxes; ``size_hw`` is None when it is not known."""
    sound = []
    for found in record.objects:
        faults = list(_check_box(found, size_hw, names))
        yield from faults
        if not any(fault.severity == "error" for fault in faults):
            sound.append(found)
    yield from check_duplicates(sound, names)


def _check_box(found: ObjectRecord, size_hw: tuple[int, int] | None, names: tuple[str, ...]) -> Iterator[Fault]:
    x1, y1, x2, y2 = found.box_xyxy
    name, where = names[found.label], found.location
    if not all(math.isfinite(value) for value in found.box_xyxy):
        yield Fault("box-not-finite", f"{name}: the box is {_show(found)}", where)
        return
    if x2 <= x1 or y2 <= y1:
        kind = "negative" if x2 < x1 or y2 < y1 else "zero"
        message = f"{name}: {kind} size {x2 - x1:g} x {y2 - y1:g} at ({x1:g}, {y1:g})"
        yield Fault(f"box-{kind}-size", message, where)
        return
    if size_hw is not None:
        height, width = size_hw
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            message = f"{name}: {_show(found)} lies outside the image of {width} x {height}"
            yield Fault("box-outside", message, where)
            return
        overhang = max(-x1, -y1, x2 - width, y2 - height)
        if overhang > _SLACK:
            message = f"{name}: {_show(found)} leaves the image of {width} x {height} by {overhang:g} px"
            yield Fault("box-beyond-border", message, where, severity="warning")
    if min(x2 - x1, y2 - y1) < _TINY:
        message = f"{name}: {x2 - x1:.3g} x {y2 - y1:.3g} px at ({x1:g}, {y1:g})"
        yield Fault("box-tiny", message, where, severity="note")


def check_duplicates(objects: list[ObjectRecord], names: tuple[str, ...]) -> Iterator[Fault]:
    """The same object labelled twice: equal boxes, or boxes of one class with an IoU above `NEAR_IOU`."""
    if len(objects) < 2:
        return
    boxes = np.array([found.box_xyxy for found in objects])
    labels = np.array([found.label for found in objects])
    crowd = np.array([found.crowd for found in objects])
    iou = np.triu(_pairwise_iou(boxes), k=1)
    for first, second in zip(*(axis.tolist() for axis in np.nonzero(iou > NEAR_IOU)), strict=True):
        if crowd[first] or crowd[second]:
            continue
        one, two = objects[first], objects[second]
        other = one.location.item or f"line {one.location.line}"
        equal = np.array_equal(boxes[first], boxes[second])
        if labels[first] == labels[second]:
            if equal:
                yield Fault("box-duplicate", f"{names[one.label]}: the same box as {other}", two.location)
            else:
                message = f"{names[one.label]}: overlaps {other} with an IoU of {iou[first, second]:.2f}"
                yield Fault("box-near-duplicate", message, two.location, severity="warning")
        elif equal:
            message = f"{names[two.label]}: {other} is the same box labelled {names[one.label]}"
            yield Fault("box-two-classes", message, two.location, severity="warning")


def _pairwise_iou(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    inter = np.clip(high - low, 0, None).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    union: npt.NDArray[np.float64] = area[:, None] + area[None] - inter
    return inter / np.maximum(union, 1e-12)


def _show(found: ObjectRecord) -> str:
    return "({:g}, {:g}, {:g}, {:g})".format(*found.box_xyxy)
