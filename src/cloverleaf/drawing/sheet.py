"""Pictures side by side, captions and legends, and the file they go to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.drawing.palette import INK, PAPER, class_colours, rgb
from cloverleaf.drawing.text import FONT, label_texts
from cloverleaf.errors import DataError

Pixels = npt.NDArray[np.uint8]
GAP = 8
_MOST_IN_LEGEND = 60


def paper(height: int, width: int) -> Pixels:
    """An empty sheet."""
    return np.full((height, width, 3), rgb(PAPER), np.uint8)


def grid(tiles: Sequence[Pixels], columns: int) -> Pixels:
    """Tiles, of any sizes, in rows of ``columns``, centred in equal cells; no tiles give an empty sheet."""
    if not tiles:
        return paper(64, 64)
    height, width = max(t.shape[0] for t in tiles), max(t.shape[1] for t in tiles)
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    sheet = paper(rows * (height + GAP) + GAP, columns * (width + GAP) + GAP)
    for k, tile in enumerate(tiles):
        row, column = divmod(k, columns)
        y = GAP + row * (height + GAP) + (height - tile.shape[0]) // 2
        x = GAP + column * (width + GAP) + (width - tile.shape[1]) // 2
        sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return sheet


def captioned(image: Pixels, text: str) -> Pixels:
    """The image with a line of text above it."""
    strip = paper(26, image.shape[1])
    cv2.putText(strip, text, (4, 18), FONT, 0.45, rgb(INK), 1, cv2.LINE_AA)
    return np.vstack([strip, image])


def legend(names: Sequence[str], width: int, only: Sequence[int] | None = None) -> Pixels:
    """A strip of ``width`` pixels with a coloured square and a name per class, 60 classes at most.

    Args:
        names: of all classes.
        width: of the strip.
        only: the classes that are shown; None shows all.
    """
    chosen = list(range(len(names)) if only is None else only)[:_MOST_IN_LEGEND]
    shown = label_texts(names, chosen)
    longest = max((cv2.getTextSize(name, FONT, 0.5, 1)[0][0] for name in shown), default=0) + 44
    columns = max(1, (width - 16) // longest)
    strip = paper(math.ceil(len(shown) / columns) * 24 + 14, width)
    for k, (name, colour) in enumerate(zip(shown, class_colours(len(names))[chosen].tolist(), strict=True)):
        x, y = 12 + (k % columns) * longest, 4 + (k // columns) * 24
        cv2.rectangle(strip, (x, y + 3), (x + 14, y + 17), colour, cv2.FILLED)
        cv2.putText(strip, name, (x + 22, y + 15), FONT, 0.5, rgb(INK), 1, cv2.LINE_AA)
    return strip


def save_picture(path: Path, image: Pixels) -> None:
    """Write an ``(H, W, 3)`` uint8 RGB array in the format of the suffix; missing folders are made.

    Raises:
        DataError: the format does not take the picture.
    """
    good, data = cv2.imencode(path.suffix, np.ascontiguousarray(image[:, :, ::-1]))
    if not good:
        raise DataError(f"cannot encode {path}", "the image format does not take it", "choose JPEG or PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.tobytes())
