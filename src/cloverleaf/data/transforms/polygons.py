"""Outlines as the transforms need them: mapped point-wise, cut at the image border, measured, filled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.structures import Polygons, Sample

Points = npt.NDArray[np.float32]


def map_points(polygons: Sequence[Polygons], function: Callable[[Points], npt.NDArray[Any]]) -> tuple[Polygons, ...]:
    """Apply ``function`` ((P, 2) -> (P, 2)) once to the points of all objects."""
    rings = [ring for rings in polygons for ring in rings]
    if not rings:
        return tuple(polygons)
    moved = function(np.concatenate(rings)).astype(np.float32, copy=False)
    ends = np.cumsum([len(ring) for ring in rings]).tolist()
    pieces = iter([moved[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)])
    return tuple(tuple(next(pieces) for _ in rings) for rings in polygons)


def map_sample(sample: Sample, function: Callable[[Points], npt.NDArray[Any]]) -> Sample:
    """The sample with the points of its outlines and of what is covered mapped."""
    moved = None if sample.polygons is None else map_points(sample.polygons, function)
    covered = None if sample.covered is None else map_points([sample.covered], function)[0]
    return replace(sample, polygons=moved, covered=covered)


def shift(polygons: Sequence[Polygons], x: float, y: float) -> tuple[Polygons, ...]:
    """Move all points by (x, y) pixels."""
    return map_points(polygons, lambda points: points + np.array([x, y], np.float32))


def extents(polygons: Sequence[Polygons]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Bounding box of each object's points -> ``(n, 4)`` xyxy (zeros without an outline), ``(n,)`` has an outline."""
    boxes = np.zeros((len(polygons), 4), np.float32)
    owners = [i for i, rings in enumerate(polygons) if rings]
    known = np.zeros(len(polygons), bool)
    if owners:
        counts = [sum(len(ring) for ring in polygons[i]) for i in owners]
        points = np.concatenate([ring for i in owners for ring in polygons[i]])
        starts = np.concatenate([[0], np.cumsum(counts[:-1])]).astype(np.intp)
        boxes[owners, :2] = np.minimum.reduceat(points, starts)
        boxes[owners, 2:] = np.maximum.reduceat(points, starts)
        known[owners] = True
    return boxes, known


def clip(polygons: Sequence[Polygons], window_xyxy: tuple[float, float, float, float]) -> tuple[Polygons, ...]:
    """Cut every ring at a rectangle (Sutherland and Hodgman 1974); rings wholly outside disappear."""
    rings = [ring for rings in polygons for ring in rings]
    if not rings:
        return tuple(polygons)
    box, _ = extents([(ring,) for ring in rings])
    left, top, right, bottom = window_xyxy
    inside = (box[:, 0] >= left) & (box[:, 1] >= top) & (box[:, 2] <= right) & (box[:, 3] <= bottom)
    if inside.all():
        return tuple(polygons)
    outside = (box[:, 0] >= right) | (box[:, 1] >= bottom) | (box[:, 2] <= left) | (box[:, 3] <= top)
    pieces = iter([
        ring if whole else None if gone else _clip_ring(ring, window_xyxy)
        for ring, whole, gone in zip(rings, inside.tolist(), outside.tolist(), strict=True)
    ])  # fmt: skip
    return tuple(tuple(piece for _ in rings if (piece := next(pieces)) is not None) for rings in polygons)


def _clip_ring(ring: Points, window_xyxy: tuple[float, float, float, float]) -> Points | None:
    for axis, limit, sign in zip((0, 1, 0, 1), window_xyxy, (1.0, 1.0, -1.0, -1.0), strict=True):
        distance = sign * (ring[:, axis] - np.float32(limit))
        kept = distance >= 0
        if kept.all():
            continue
        if not kept.any():
            return None
        turn = np.arange(1, len(ring) + 1)
        turn[-1] = 0
        following, ahead = ring[turn], distance[turn]
        crosses = kept != kept[turn]
        share = distance / np.where(crosses, distance - ahead, np.float32(1))
        both = np.empty((len(ring), 2, 2), np.float32)
        both[:, 0] = ring
        both[:, 1] = ring + (following - ring) * share[:, None]
        both[:, 1, axis] = limit
        wanted = np.empty((len(ring), 2), bool)
        wanted[:, 0], wanted[:, 1] = kept, crosses
        ring = both[wanted]
    return ring if len(ring) >= 3 else None


def areas(polygons: Sequence[Polygons]) -> npt.NDArray[np.float64]:
    """Area of each object's rings, holes taken off -> ``(n,)`` square pixels, 0 without an outline."""
    return np.array([sum(abs(cv2.contourArea(ring)) for ring in rings) for rings in polygons], np.float64)


def fill_mask(rings: Polygons, size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Pixels whose centre lies in one of the rings (their union) -> ``(H, W)`` uint8 in {0, 1}."""
    mask = np.zeros(size_hw, np.uint8)
    fill_into(mask, rings, 1)
    return mask


def fill_into(canvas: npt.NDArray[Any], rings: Polygons, value: int) -> None:
    """Set the pixels of the ``(H, W)`` canvas whose centre lies in one of the rings.

    OpenCV draws the rim of a filled polygon as well; the rim is kept only where the centre test agrees, by filling at
    a scale where it is a quarter of a pixel wide and sampling the centres.
    """
    box, known = extents([rings])
    if not known[0]:
        return
    x1, y1 = np.maximum(np.floor(box[0, :2]), 0).astype(int)
    x2, y2 = np.minimum(np.ceil(box[0, 2:]), canvas.shape[::-1]).astype(int)
    if x2 <= x1 or y2 <= y1:
        return
    fine = np.zeros(((y2 - y1) * 4, (x2 - x1) * 4), np.uint8)
    origin = np.array([x1, y1], np.float32)
    for ring in rings:
        points = np.round(((ring - origin) * 4 - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(fine, [points], 1, shift=4)
    canvas[y1:y2, x1:x2][(fine[2::4, 2::4] & fine[1::4, 1::4]).astype(bool)] = value
