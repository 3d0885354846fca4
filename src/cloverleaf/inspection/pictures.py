"""How inspections are drawn: rows of images, similarities as a map of colours, errors over columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cloverleaf.drawing.figure import figure
from cloverleaf.drawing.palette import INK, MUTED, SEQUENTIAL, colour_of
from cloverleaf.drawing.sheet import GAP, captioned, grid, paper, save_picture

_LEAST_SIDE = 224  # of an image in a sheet
_MOST_NUMBERS = 24  # rows of a map of similarities whose numbers can still be read
_LEAST_ERROR = 1e-17


@dataclass(frozen=True, slots=True)
class Tile:
    """An image with a line above it.

    Attributes:
        image: (3, S, S) in [0, 1].
        text: short.
    """

    image: Tensor
    text: str


def psnr(image: Tensor, other: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of ``other`` (clipped to [0, 1]) against ``image``; 999 at most."""
    error = float((other.clamp(0, 1) - image).double().square().mean())
    return 999.0 if error <= 0 else float(min(-10 * np.log10(error), 999.0))


def draw_rows(rows: Sequence[Sequence[Tile]], heads: Sequence[str], path: Path, *, title: str) -> None:
    """A sheet with a row of tiles for each image, what every column shows above them, and a title.

    Args:
        rows: as many tiles in each as ``heads``.
        heads: of the columns.
        path: the PNG to write.
        title: above all.
    """
    side = max(_LEAST_SIDE, rows[0][0].image.shape[-1])
    heading = np.hstack([paper(26, GAP), *(captioned(paper(0, side + GAP), head) for head in heads)])
    sheet = grid([captioned(_pixels(tile.image, side), tile.text) for row in rows for tile in row], len(heads))
    save_picture(path, np.vstack([captioned(paper(0, sheet.shape[1]), f" {title}"), heading, sheet]))


def _pixels(image: Tensor, side: int) -> npt.NDArray[np.uint8]:
    """Enlarged by whole factors where possible, so that pixels stay visible."""
    array = (image.detach().cpu().double().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    method = cv2.INTER_NEAREST if side % array.shape[0] == 0 else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(array), (side, side), interpolation=method).astype(np.uint8)


def plot_similarities(
    matrix: npt.NDArray[Any], groups: Sequence[tuple[str, Sequence[str]]], path: Path, *, title: str
) -> None:
    """Similarities as a map of colours, with groups of rows set apart.

    Args:
        matrix: (F, F) up to 1; what is below 0, by chance of few examples, has the colour of 0. NaN stays white.
        groups: name and labels of neighbouring rows, F labels in all.
        path: the PNG to write.
        title: of the figure.
    """
    labels = [label for _, names in groups for label in names]
    count = len(labels)
    side = min(max(4.6, 0.36 * count + 2.2), 15)
    with figure(path, side + 1.2, side) as drawing:
        axis = drawing.subplots()
        image = axis.imshow(np.ma.masked_invalid(matrix), cmap=SEQUENTIAL, vmin=0, vmax=1)
        axis.grid(visible=False)
        size = 8 if count <= _MOST_NUMBERS else 6
        axis.set_xticks(range(count), labels, fontsize=size, rotation=90 if count > _MOST_NUMBERS else 0)
        axis.set_yticks(range(count), labels, fontsize=size)
        if count <= _MOST_NUMBERS:
            for i, j in zip(*np.nonzero(np.isfinite(matrix)), strict=True):
                tone = "white" if matrix[i, j] > 0.6 else INK
                axis.text(j, i, short(matrix[i, j]), ha="center", va="center", fontsize=6.5, color=tone)
        _name_groups(axis, groups)
        axis.set_title(title)
        axis.set_xlabel("strides of the maps", labelpad=26)
        bar = drawing.colorbar(image, ax=axis, shrink=0.6)
        bar.set_label("similarity (linear CKA)")


def short(value: float) -> str:
    """With two digits and without the zero before the point: .98, -.31, 1.00."""
    return f"{round(value, 2) + 0.0:.2f}".replace("0.", ".", 1)  # + 0.0: no negative zero


def _name_groups(axis: Any, groups: Sequence[tuple[str, Sequence[str]]]) -> None:
    """White lines between groups, and their names beside the labels of their rows and columns."""
    start = 0
    for name, labels in groups:
        end = start + len(labels)
        for line in (axis.axhline, axis.axvline):
            line(end - 0.5, color="white", linewidth=2.5)
        middle = (start + end - 1) / 2
        style: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axis.annotate(name, (0, middle), (-34, 0), rotation=90, ha="center", va="center", color=MUTED, **style)
        style["xycoords"] = ("data", "axes fraction")
        axis.annotate(name, (middle, 0), (0, -26), ha="center", va="top", color=MUTED, **style)
        start = end


def plot_errors(errors: Mapping[str, Sequence[Sequence[float]]], path: Path, *, title: str) -> None:
    """Largest errors over the columns, one panel for each way of inverting, one line for each level.

    Args:
        errors: name -> column -> level.
        path: the PNG to write.
        title: of the figure.
    """
    with figure(path, 3.6 * len(errors) + 0.6, 3.2) as drawing:
        axes = drawing.subplots(1, len(errors), sharey=True, squeeze=False)[0]
        for axis, (name, columns) in zip(axes, errors.items(), strict=True):
            numbers = list(range(1, len(columns) + 1))
            for level, values in enumerate(np.maximum(np.array(columns), _LEAST_ERROR).T):
                axis.plot(numbers, values, "o-", color=colour_of(level), label=f"stride {4 << level}", markersize=4)
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
            axis.set_xlabel("column")
            axis.set_xticks(numbers if len(numbers) <= 16 else numbers[::4])
            axis.set_title(name)
        axes[0].set_ylabel("largest error")
        axes[0].legend(loc="best")
        drawing.suptitle(f"{title}: columns recovered from later ones", x=0.01, ha="left", fontsize=10, color=INK)
