"""What was taken for what, as matrices in colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.drawing.figure import figure
from cloverleaf.drawing.palette import INK, MUTED, SEQUENTIAL
from cloverleaf.drawing.text import printable


def plot_confusion(counts: npt.NDArray[Any], names: Sequence[str], path: Path) -> None:
    """What the objects of each class were taken for.

    Args:
        counts: (K + 1, K + 1); rows are true classes, columns detected ones, background (missed, or detected where
            nothing is) last in both.
        names: K class names.
        path: the PNG to write.
    """
    shown = printable(list(names))
    with _matrix(counts, [*shown, "background"], [*shown, "missed"], path) as axis:
        axis.set(xlabel="detected as", ylabel="true class")
        axis.axhline(len(counts) - 1.5, color=MUTED, linewidth=1)
        axis.axvline(len(counts) - 1.5, color=MUTED, linewidth=1)
        axis.set_title("Confusion matrix")


def plot_pixel_confusion(counts: npt.NDArray[Any], names: Sequence[str], path: Path) -> None:
    """What the pixels of each class were called.

    Args:
        counts: (K, K) pixels; rows are true classes, columns what they were called.
        names: K class names.
        path: the PNG to write.
    """
    shown = printable(list(names))
    with _matrix(counts, shown, shown, path, as_shares=True) as axis:
        axis.set(xlabel="called", ylabel="true class")
        axis.set_title("Confusion matrix of pixels")


def plot_class_confusion(counts: npt.NDArray[Any], names: Sequence[str], called: Sequence[str], path: Path) -> None:
    """What the images of each class were called.

    Args:
        counts: (K, C) images; rows are true classes, columns what they were called.
        names: K class names.
        called: C names of what may be called, the same and perhaps more.
        path: the PNG to write.
    """
    square = np.zeros((len(called), len(called)), np.int64)
    square[: len(names)] = counts
    labels = printable(list(called))
    rows = [*labels[: len(names)], *[""] * (len(called) - len(names))]
    with _matrix(square, labels, rows, path) as axis:
        axis.set(xlabel="called", ylabel="true class")
        axis.set_title("Confusion matrix of images")


@contextmanager
def _matrix(
    counts: npt.NDArray[Any], rows: Sequence[str], columns: Sequence[str], path: Path, *, as_shares: bool = False
) -> Iterator[Any]:
    """A square matrix in colours, with numbers where there is room for them; counts, or percent of the row."""
    counts = np.asarray(counts, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    total = len(counts)
    side = min(max(3.6, 0.42 * total + 2), 16)
    font = 8.5 if total <= 26 else max(3.5, 220 / total)
    with figure(path, side + 1.4, side) as drawing:
        axis = drawing.subplots()
        image = axis.imshow(np.ma.masked_equal(shares, 0), cmap=SEQUENTIAL, vmin=0, vmax=1)
        axis.set_xticks(range(total), columns, rotation=90, fontsize=font)
        axis.set_yticks(range(total), rows, fontsize=font)
        axis.grid(visible=False)
        if total <= 26:
            for i, j in zip(*np.nonzero(counts), strict=True):
                tone = "white" if shares[i, j] > 0.55 else INK
                text = f"{100 * shares[i, j]:.1f}" if as_shares else f"{int(counts[i, j])}"
                axis.text(j, i, text, ha="center", va="center", fontsize=7, color=tone)
        bar = drawing.colorbar(image, ax=axis, shrink=0.6, format=lambda share, _: f"{share:.0%}")
        bar.set_label("share of the true class")
        yield axis
