"""Mosaics of four and nine images, and mixup. Placement as in the published YOLOv7 code (arXiv 2207.02696)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.data.transforms import polygons as outlines
from cloverleaf.data.transforms.geometry import GREY
from cloverleaf.data.transforms.objects import join
from cloverleaf.structures import Sample


def draw_mosaic4_centre(rng: np.random.Generator, size: int) -> tuple[int, int]:
    """(y, x) where the four tiles meet on the 2s x 2s canvas, each in [s / 2, 3s / 2]; y is drawn first."""
    return int(rng.uniform(size / 2, size * 1.5)), int(rng.uniform(size / 2, size * 1.5))


def draw_mosaic9_offset(rng: np.random.Generator, size: int) -> tuple[int, int]:
    """(y, x) of the 2s x 2s window in the 3s x 3s canvas, each in [0, s); y is drawn first."""
    return int(rng.uniform(0, size)), int(rng.uniform(0, size))


def mosaic4(tiles: Sequence[Sample], centre_yx: tuple[int, int], size: int) -> Sample:
    """Four images around a point: top-left, top-right, bottom-left, bottom-right, cut at the canvas.

    Args:
        tiles: four samples, longer side ``size`` each.
        centre_yx: from `draw_mosaic4_centre`.
        size: s; the canvas is 2s x 2s.
    """
    y, x = centre_yx
    corners = []
    for number, tile in enumerate(tiles):
        height, width = tile.size_hw
        corners.append((x - width if number % 2 == 0 else x, y - height if number < 2 else y))
    return _compose(tiles, corners, (2 * size, 2 * size))


def mosaic9(tiles: Sequence[Sample], offset_yx: tuple[int, int], size: int) -> Sample:
    """Nine images: centre, then clockwise from the top; later ones lie over earlier ones.

    Args:
        tiles: nine samples, longer side ``size`` each.
        offset_yx: from `draw_mosaic9_offset`.
        size: s; the result is 2s x 2s.
    """
    corners = _spiral([tile.size_hw for tile in tiles], size)
    moved = [(x - offset_yx[1], y - offset_yx[0]) for x, y in corners]
    return _compose(tiles, moved, (2 * size, 2 * size))


def _spiral(sizes: Sequence[tuple[int, int]], s: int) -> list[tuple[int, int]]:
    """Top-left corners (x, y) of the nine tiles on the 3s x 3s canvas."""
    (h0, w0), (_, w1), _, (h3, _), _, (_, w5), _, (h7, _), _ = sizes
    return [
        (s, s),
        (s, s - sizes[1][0]),
        (s + w1, s - sizes[2][0]),
        (s + w0, s),
        (s + w0, s + h3),
        (s + w0 - sizes[5][1], s + h0),
        (s + w0 - w5 - sizes[6][1], s + h0),
        (s - sizes[7][1], s + h0 - sizes[7][0]),
        (s - sizes[8][1], s + h0 - h7 - sizes[8][0]),
    ]


def _compose(tiles: Sequence[Sample], corners_xy: Sequence[tuple[int, int]], canvas_hw: tuple[int, int]) -> Sample:
    """Paste the tiles with their top-left corners at the given places; objects are moved along and clipped."""
    height, width = canvas_hw
    canvas = np.full((height, width, 3), GREY, np.uint8)
    placed = []
    for tile, (x, y) in zip(tiles, corners_xy, strict=True):
        x1, y1 = max(x, 0), max(y, 0)
        x2, y2 = min(x + tile.size_hw[1], width), min(y + tile.size_hw[0], height)
        if x2 > x1 and y2 > y1:
            canvas[y1:y2, x1:x2] = tile.image[y1 - y : y2 - y, x1 - x : x2 - x]
        boxes = tile.boxes_xyxy + np.array([x, y, x, y], np.float32)
        corner = np.array([x, y], np.float32)
        moved = outlines.map_sample(tile, lambda points, corner=corner: points + corner)  # type: ignore[misc]
        placed.append(replace(moved, boxes_xyxy=boxes))
    joined = join(canvas, placed)
    boxes = joined.boxes_xyxy.clip(0, np.array([width, height] * 2, np.float32))
    window = (0, 0, width, height)
    return replace(
        joined,
        boxes_xyxy=boxes,
        polygons=None if joined.polygons is None else outlines.clip(joined.polygons, window),
        covered=None if joined.covered is None else outlines.clip([joined.covered], window)[0],
    )


def mixup(first: Sample, second: Sample, ratio: float) -> Sample:
    """Blend two images of one size: ratio x first + (1 - ratio) x second; all objects of both stay, unweighted."""
    image: npt.NDArray[np.uint8] = cv2.addWeighted(first.image, ratio, second.image, 1 - ratio, 0)
    return join(image, [first, second])
