"""Refuse a dataset without outlines where a task needs them."""

from __future__ import annotations

import numpy as np

from cloverleaf.data.index import DetectionIndex
from cloverleaf.errors import DataError


def require_masks(index: DetectionIndex, *, boxes_as_masks: bool = False) -> None:
    """Nothing, if every object that is no crowd has an outline or a mask, or if boxes may stand for them.

    Raises:
        DataError: some have none; the message names an image that has such an object.
    """
    bare = np.flatnonzero(~index.outlined() & ~index.crowd)
    if boxes_as_masks or not len(bare):
        return
    image = int(np.searchsorted(index.object_offsets, bare[0], side="right")) - 1
    total = len(index.labels)
    raise DataError(
        what=f"split {index.split!r} of {index.source} has no masks"
        if len(bare) == total
        else f"split {index.split!r} of {index.source} has objects without a mask",
        why=f"{len(bare)} of {total} objects have neither outline nor run lengths, the first in "
        f"{index.image_path(image)}",
        fix="give them segmentation (COCO polygons or RLE, YOLO segments), use --task detect, or take boxes for masks "
        "with --set data.boxes_as_masks=true",
    )
