"""Outlines of run-length masks, on pixel edges."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cloverleaf.data.records import RunLength

Ring = npt.NDArray[np.float32]


def decode(mask: RunLength) -> npt.NDArray[np.uint8]:
    """``(H, W)`` uint8 of 0 and 1."""
    from faster_coco_eval.core import mask as coco_mask

    decoded: npt.NDArray[np.uint8] = coco_mask.decode({"size": list(mask.size_hw), "counts": mask.counts})
    return np.ascontiguousarray(decoded)


def outline(mask: RunLength) -> tuple[Ring, ...]:
    """Outlines of a mask's parts: rings ``(k, 2)`` float32 (x, y) along the edges of its pixels.

    A mask of one pixel at (0, 0) gives the square from 0 to 1. Parts are joined over edges; one with holes is one ring
    that runs around it and, over a seam without width, around each hole, so that filling it leaves the holes out.
    Filled by pixel centres the rings give the mask back.
    """
    import cv2
    from faster_coco_eval.core import mask as coco_mask

    encoded = {"size": list(mask.size_hw), "counts": mask.counts}
    left, top, width, height = (int(value) for value in coco_mask.toBbox(encoded))
    if width == 0 or height == 0:
        return ()
    crop = np.ascontiguousarray(coco_mask.decode(encoded)[top : top + height, left : left + width])
    count, parts, extents, _ = cv2.connectedComponentsWithStats(crop, connectivity=4)
    rings = []
    for part in range(1, count):
        x, y, w, h = extents[part, :4].tolist()
        pixels = (parts[y : y + h, x : x + w] == part).astype(np.uint8)
        ring = _around(pixels)
        for hole in _holes(pixels):
            ring = _joined(ring, hole)
        rings.append(ring + np.array([left + x, top + y], dtype=np.float32))
    return tuple(rings)


def _around(pixels: npt.NDArray[np.uint8]) -> Ring:
    """The outer outline of ``(h, w)`` pixels of which all ones are joined over edges."""
    import cv2

    # Points of a lattice at half-pixel steps; each pixel covers the 3 x 3 points from its corners to its centre.
    lattice = np.zeros((2 * pixels.shape[0] + 1, 2 * pixels.shape[1] + 1), dtype=np.uint8)
    lattice[1::2, 1::2] = pixels
    lattice = cv2.dilate(lattice, np.ones((3, 3), dtype=np.uint8))
    contours, _ = cv2.findContours(lattice, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return (_with_corners(contours[0][:, 0, :]) / 2).astype(np.float32)


def _with_corners(points: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Corners of a closed path on the lattice, whose diagonal steps cut the corners that point inwards."""
    following = np.roll(points, -1, axis=0)
    diagonal = np.all(points != following, axis=1)
    # Edges run along even coordinates: of a diagonal step's two ends each gives the one that is even.
    corners = np.where(points % 2 == 0, points, following)
    both = np.stack([points, corners], axis=1)
    path = both[np.stack([np.ones_like(diagonal), diagonal], axis=1)]
    step = np.sign(np.roll(path, -1, axis=0) - path)
    turns: npt.NDArray[np.bool_] = np.any(step != np.roll(step, 1, axis=0), axis=1)
    return path[turns]


def _holes(pixels: npt.NDArray[np.uint8]) -> list[Ring]:
    """Outlines of the regions of zeros, joined over edges, that do not reach the border, from left to right."""
    import cv2

    count, regions = cv2.connectedComponents(np.pad(1 - pixels, 1, constant_values=1), connectivity=4)
    if count == 2:  # the ones, and what is around them
        return []
    around, regions = int(regions[0, 0]), regions[1:-1, 1:-1]
    found = [_around((regions == region).astype(np.uint8)) for region in range(1, count) if region != around]
    return sorted(found, key=lambda hole: float(hole[:, 0].min()))


def _joined(ring: Ring, hole: Ring) -> Ring:
    """The ring with the hole taken in, over a seam from the hole's leftmost corner straight to the left."""
    hole = hole[::-1]  # the other way round, so that its area counts against the ring's
    j = int(hole[:, 0].argmin())
    x, y = hole[j]
    following = np.roll(ring, -1, axis=0)
    low, high = np.minimum(ring, following)[:, 1], np.maximum(ring, following)[:, 1]
    met = (ring[:, 0] == following[:, 0]) & (ring[:, 0] <= x) & (low <= y) & (y <= high)
    i = int(np.where(met, ring[:, 0], -1).argmax())
    seam = np.array([[ring[i, 0], y]], dtype=np.float32)
    return np.concatenate([ring[: i + 1], seam, hole[j:], hole[: j + 1], seam, ring[i + 1 :]])
