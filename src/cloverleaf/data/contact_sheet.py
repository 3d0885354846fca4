"""Labelled images side by side."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cloverleaf.data.image_io import read_resized
from cloverleaf.data.index import DetectionIndex
from cloverleaf.drawing.boxes import Pixels, draw_boxes
from cloverleaf.drawing.sheet import grid, legend, save_picture
from cloverleaf.errors import ImageError

_TILE = 400
_ROWS, _COLUMNS = 3, 4


def draw_contact_sheet(index: DetectionIndex, path: Path, *, seed: int = 0) -> bool:
    """Write a sheet of up to twelve images with their labels; False if none of them can be read.

    Images are drawn at random, those with objects first; class names stand beside boxes where there is room, and a
    legend below names all colours.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(index))
    empty = np.diff(index.object_offsets)[order] == 0
    tiles: list[Pixels] = []
    for i in order[np.argsort(empty, kind="stable")].tolist():
        try:
            tiles.append(_tile(index, i))
        except ImageError:
            continue  # the linter reports it; the sheet shows another one
        if len(tiles) == _ROWS * _COLUMNS:
            break
    if not tiles:
        return False
    sheet = grid(tiles, _COLUMNS)
    save_picture(path, np.concatenate([sheet, legend(index.names, sheet.shape[1])]))
    return True


def _tile(index: DetectionIndex, i: int) -> Pixels:
    image, _ = read_resized(index.image_path(i), _TILE, area=True)
    full_hw = index.size_hw(i)
    scale = np.array([image.shape[1] / full_hw[1], image.shape[0] / full_hw[0]])
    objects = index.objects(i)
    outlines = None if objects.polygons is None else [[ring * scale for ring in rings] for rings in objects.polygons]
    return draw_boxes(
        image,
        objects.boxes_xyxy * np.tile(scale, 2),
        objects.labels,
        index.names,
        outlines=outlines,
        texts="none" if len(index.names) == 1 else "fitting",
    )
