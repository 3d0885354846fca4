"""The colours of everything that is drawn: boxes on photographs, lines and bars in figures."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt

# Okabe and Ito's palette, which colour-blind readers can tell apart, without its black and its pale yellow; then
# darker and paler relatives for more classes.
COLOURS = (
    *("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9"),
    *("#7a5195", "#8c6d1f", "#2f4b7c", "#a8b400", "#b03060", "#5f9ea0"),
)
INK, MUTED, GRID, PAPER = "#1f2933", "#66737f", "#dfe4e8", "#f6f7f9"
SEQUENTIAL = "Blues"  # light for little, dark for much
DIVERGING = "RdBu_r"  # blue below the middle, red above

RGB = tuple[int, int, int]


def rgb(colour: str) -> RGB:
    """``"#rrggbb"`` as three numbers from 0 to 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def colour_of(index: int) -> str:
    """``"#rrggbb"`` of a class or a line: the palette, then hues at the golden angle."""
    if index < len(COLOURS):
        return COLOURS[index]
    k = index - len(COLOURS)
    channels = colorsys.hsv_to_rgb((k * 0.618034) % 1, 0.55 + 0.35 * (k % 2), 0.9)
    return "#" + "".join(f"{round(255 * value):02x}" for value in channels)


def class_colours(count: int) -> npt.NDArray[np.uint8]:
    """``(count, 3)`` uint8 RGB, the colours of ``count`` classes."""
    return np.array([rgb(colour_of(k)) for k in range(count)], np.uint8).reshape(-1, 3)


def ink_on(colour: RGB) -> RGB:
    """Black or white, whichever reads better on the colour."""
    bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 140
    return (0, 0, 0) if bright else (255, 255, 255)
