"""Labelled images side by side."""

from __future__ import annotations

import colorsys
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.data.image_io import read_resized
from cloverleaf.data.index import DetectionIndex
from cloverleaf.errors import ImageError

INK = "#333333"
_TILE = 400
_GAP = 8
_ROWS, _COLUMNS = 3, 4
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BASE = (
    (230, 57, 70), (0, 158, 115), (0, 114, 178), (240, 170, 0), (170, 70, 200), (86, 200, 233), (213, 94, 0),
    (204, 121, 167), (120, 160, 20), (110, 80, 60), (255, 105, 180), (0, 190, 190),
)  # fmt: skip


def class_colours(count: int) -> npt.NDArray[np.uint8]:
    """``(count, 3)`` uint8 RGB: a dozen colours that are easy to tell apart, then hues at the golden angle."""
    more = [colorsys.hsv_to_rgb((k * 0.618034) % 1, 0.55 + 0.35 * (k % 2), 0.9) for k in range(max(0, count - 12))]
    table = [*_BASE, *(tuple(int(255 * value) for value in colour) for colour in more)]
    return np.array(table[:count], dtype=np.uint8).reshape(-1, 3)


def draw_contact_sheet(index: DetectionIndex, path: Path, *, seed: int = 0) -> bool:
    """Write a sheet of up to twelve images with their labels; False if none of them can be read.

    Images are drawn at random, those with objects first; class names stand beside boxes where there is room, and a
    legend below names all colours.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(index))
    empty = np.diff(index.object_offsets)[order] == 0
    tiles: list[npt.NDArray[np.uint8]] = []
    for i in order[np.argsort(empty, kind="stable")].tolist():
        try:
            tiles.append(_tile(index, i))
        except ImageError:
            continue  # the linter reports it; the sheet shows another one
        if len(tiles) == _ROWS * _COLUMNS:
            break
    if not tiles:
        return False
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * (_TILE + _GAP) + _GAP, columns * (_TILE + _GAP) + _GAP, 3), 250, dtype=np.uint8)
    for k, tile in enumerate(tiles):
        top, left = (_GAP + (k // columns) * (_TILE + _GAP), _GAP + (k % columns) * (_TILE + _GAP))
        sheet[top : top + _TILE, left : left + _TILE] = tile
    sheet = np.concatenate([sheet, _legend(index.names, sheet.shape[1])])
    path.write_bytes(cv2.imencode(".png", sheet[:, :, ::-1])[1].tobytes())
    return True


def _tile(index: DetectionIndex, i: int) -> npt.NDArray[np.uint8]:
    image, _ = read_resized(index.image_path(i), _TILE, area=True)
    height, width = image.shape[:2]
    top, left = (_TILE - height) // 2, (_TILE - width) // 2
    tile = np.full((_TILE, _TILE, 3), 235, dtype=np.uint8)
    tile[top : top + height, left : left + width] = image
    full_hw = index.size_hw(i)
    scale = np.array([width / full_hw[1], height / full_hw[0]])
    objects = index.objects(i)
    shift = np.array([left, top])
    boxes = objects.boxes_xyxy * np.tile(scale, 2) + np.tile(shift, 2)
    colours = [tuple(int(value) for value in row) for row in class_colours(len(index.names))[objects.labels]]
    for k, rings in enumerate(objects.polygons or ()):
        points = [np.round((ring * scale + shift) * 8).astype(np.int32) for ring in rings]
        shade = tile.copy()
        cv2.fillPoly(shade, points, colours[k], lineType=cv2.LINE_AA, shift=3)
        tile = cv2.addWeighted(shade, 0.35, tile, 0.65, 0)
    for box, colour in zip(np.round(boxes).astype(int).tolist(), colours, strict=True):
        thin = 1 if min(box[2] - box[0], box[3] - box[1]) < 40 else 2
        cv2.rectangle(tile, (box[0], box[1]), (box[2], box[3]), colour, thin, cv2.LINE_AA)
    _write_labels(tile, boxes, objects.labels.tolist(), index.names, colours)
    return tile


def _write_labels(
    tile: npt.NDArray[np.uint8],
    boxes: npt.NDArray[np.float64],
    labels: list[int],
    names: tuple[str, ...],
    colours: list[tuple[int, ...]],
) -> None:
    """Class names above, below or inside their boxes, the largest boxes first, wherever no other name is."""
    if len(names) == 1:
        return
    taken: list[tuple[int, int, int, int]] = []
    order = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(1), kind="stable").tolist()
    for k in order:
        text = names[labels[k]][:18]
        (width, height), base = cv2.getTextSize(text, _FONT, 0.42, 1)
        width, height = width + 6, height + base + 3
        x1, y1, x2, y2 = (int(value) for value in boxes[k])
        left = min(max(x1, 0), _TILE - width)
        roomy = x2 - x1 > width and y2 - y1 > 3 * height  # the name may stand inside without hiding the object
        for top in (y1 - height, y2, y1, y2 - height)[: 4 if roomy else 2]:
            area = (left, top, left + width, top + height)
            if top >= 0 and top + height <= _TILE and not any(_overlap(area, other) for other in taken):
                taken.append(area)
                cv2.rectangle(tile, area[:2], area[2:], colours[k], cv2.FILLED)
                place = (left + 3, top + height - base)
                cv2.putText(tile, text, place, _FONT, 0.42, _text_colour(colours[k]), 1, cv2.LINE_AA)
                break


def _overlap(one: tuple[int, int, int, int], two: tuple[int, int, int, int]) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def _text_colour(colour: tuple[int, ...]) -> tuple[int, int, int]:
    """Black or white, whichever reads better on the colour."""
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    return (0, 0, 0) if bright else (255, 255, 255)


def _legend(names: tuple[str, ...], width: int) -> npt.NDArray[np.uint8]:
    """A strip with a coloured square and a name per class; at most 60 classes."""
    shown = names[:60]
    longest = max(cv2.getTextSize(name[:24], _FONT, 0.5, 1)[0][0] for name in shown) + 44
    columns = max(1, (width - 16) // longest)
    rows = -(-len(shown) // columns)
    strip = np.full((rows * 24 + 14, width, 3), 250, dtype=np.uint8)
    for k, name in enumerate(shown):
        x, y = 12 + (k % columns) * longest, 4 + (k // columns) * 24
        colour = tuple(int(value) for value in class_colours(len(names))[k])
        cv2.rectangle(strip, (x, y + 3), (x + 14, y + 17), colour, cv2.FILLED)
        cv2.putText(strip, name[:24], (x + 22, y + 15), _FONT, 0.5, (50, 50, 50), 1, cv2.LINE_AA)
    return strip
