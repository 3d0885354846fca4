"""The class of every pixel of a stored image, from its objects: what semantic segmentation is judged against."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cloverleaf.data.collate import IGNORED
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.outline import decode
from cloverleaf.data.transforms.polygons import fill_mask

MOST_CLASSES = IGNORED - 1  # beside the background


def label_map(index: DetectionIndex, i: int, *, boxes_as_masks: bool = False) -> npt.NDArray[np.uint8]:
    """``(H, W)`` uint8 in pixels of the stored image ``i``.

    0 is background, label + 1 an object, smaller objects on top of larger ones, and 255 a crowd region, which counts
    for nothing where no object lies on it. Run-length masks are taken exactly, polygons by their pixel centres.

    Args:
        index: the dataset.
        i: row of the index.
        boxes_as_masks: an object without outline fills its box; otherwise it is background.
    """
    size_hw, objects = index.size_hw(i), index.objects(i)
    canvas = np.zeros(size_hw, np.uint8)
    masks = []
    for k, run_length in enumerate(index.run_lengths(i)):
        rings = objects.polygons[k] if objects.polygons is not None else ()
        if not rings and run_length is None and boxes_as_masks:
            rings = (objects.boxes_xyxy[k][[0, 1, 2, 1, 2, 3, 0, 3]].reshape(4, 2).astype(np.float32),)
        exact = decode(run_length) if run_length is not None else fill_mask(rings, size_hw)
        masks.append(np.flatnonzero(exact))
    order = sorted(range(len(masks)), key=lambda k: (not objects.crowd[k], -len(masks[k])))
    for k in order:
        canvas.reshape(-1)[masks[k]] = IGNORED if objects.crowd[k] else int(objects.labels[k]) + 1
    return canvas
