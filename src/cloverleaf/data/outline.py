"""Outlines of run-length masks, on pixel edges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cloverleaf.data.records import RunLength


def decode(mask: RunLength) -> npt.NDArray[np.uint8]:
    """``(H, W)`` uint8 of 0 and 1."""
    from faster_coco_eval.core import mask as coco_mask

    decoded: npt.NDArray[np.uint8] = coco_mask.decode({"size": list(mask.size_hw), "counts": mask.counts})
    return np.ascontiguousarray(decoded)


def outline(mask: RunLength) -> tuple[npt.NDArray[np.float32], ...]:
    """Outer outlines of a mask's parts: rings ``(k, 2)`` float32 (x, y) along the edges of its pixels.

    A mask of one pixel at (0, 0) gives the square from 0 to 1. Holes are filled.
    """
    import cv2
    from faster_coco_eval.core import mask as coco_mask

    encoded = {"size": list(mask.size_hw), "counts": mask.counts}
    left, top, width, height = (int(value) for value in coco_mask.toBbox(encoded))
    if width == 0 or height == 0:
        return ()
    crop = coco_mask.decode(encoded)[top : top + height, left : left + width]
    # Points of a lattice at half-pixel steps; each pixel covers the 3 x 3 points from its corners to its centre.
    lattice = np.zeros((2 * crop.shape[0] + 1, 2 * crop.shape[1] + 1), dtype=np.uint8)
    lattice[1::2, 1::2] = crop
    lattice = cv2.dilate(lattice, np.ones((3, 3), dtype=np.uint8))
    contours, _ = cv2.findContours(lattice, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    shift = np.array([left, top], dtype=np.float32)
    return tuple(contour[:, 0, :].astype(np.float32) / 2 + shift for contour in contours if len(contour) >= 3)
