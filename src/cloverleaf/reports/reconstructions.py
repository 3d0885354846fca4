"""Pictures of masked pre-training: original, what was visible, what was drawn; and the curve of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.drawing.figure import figure
from cloverleaf.drawing.palette import INK, MUTED, colour_of
from cloverleaf.drawing.sheet import GAP, captioned, grid, paper, save_picture

Pixels = npt.NDArray[np.uint8]
_SIDE = 224  # of one image in the sheet
_HIDDEN = 200  # grey of hidden patches
_GAP = 4
_HEADER = 26  # height of a caption


def draw_reconstructions(
    originals: Pixels, visible: npt.NDArray[np.bool_], filled: Pixels, path: Path, *, title: str = ""
) -> None:
    """A sheet with one triple an image: the original, the visible patches, and the reconstruction.

    Args:
        originals: (n, S, S, 3) RGB.
        visible: (n, f, f).
        filled: (n, S, S, 3): the original where visible, elsewhere what the network drew.
        path: the PNG or JPEG to write.
        title: above the reconstructions, e.g. the epoch.
    """
    triples = []
    for image, seen, drawn in zip(originals, visible, filled, strict=True):
        mask = np.kron(seen, np.ones((len(image) // len(seen),) * 2, bool))
        masked = np.where(mask[:, :, None], image, np.uint8(_HIDDEN))
        gap = paper(_SIDE, _GAP)
        triples.append(np.hstack([_tile(image), gap, _tile(masked), gap, _tile(drawn)]))
    columns = 2 if len(triples) > 1 else 1
    texts = ("original", "visible", f"reconstruction  {title}".rstrip())
    header = np.hstack(
        [
            paper(_HEADER, GAP),
            *([captioned(paper(0, _SIDE + _GAP), text) for text in texts] + [paper(_HEADER, GAP - _GAP)]) * columns,
        ]
    )
    save_picture(path, np.vstack([header, grid(triples, columns)]))


def _tile(image: Pixels) -> Pixels:
    area = cv2.INTER_AREA if len(image) > _SIDE else cv2.INTER_LINEAR
    resized: Pixels = cv2.resize(image, (_SIDE, _SIDE), interpolation=area)
    return resized


def plot_pretraining(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss on hidden patches, learning rate and weight decay over the epochs.

    Args:
        rows: of ``results.csv``: ``epoch``, ``train/loss``, ``lr``, ``weight_decay``.
        path: the PNG to write.
    """
    epochs = [float(row["epoch"]) for row in rows]
    few = "o" if len(rows) < 3 else None
    with figure(path, 11, 3.4) as drawing:
        left, right = drawing.subplots(1, 2, width_ratios=(3, 2))
        losses = [float(row["train/loss"]) for row in rows]
        left.plot(epochs, losses, color=colour_of(0), marker=few)
        left.annotate(
            f"{losses[-1]:.3f}", (epochs[-1], losses[-1]), (0, 6), textcoords="offset points", ha="right", fontsize=8
        )
        left.set_title("Loss on hidden patches (1: the mean of each patch everywhere)")
        left.axhline(1.0, color=MUTED, linestyle="--", linewidth=1)
        right.plot(epochs, [float(row["lr"]) for row in rows], color=INK, marker=few)
        right.set_title("Learning rate at the end of the epoch")
        right.set_ylim(bottom=0)
        for axis in (left, right):
            axis.set_xlabel("epoch")
            axis.xaxis.get_major_locator().set_params(integer=True)
