"""Photographs with boxes on them: training batches, and predictions beside the ground truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cloverleaf.drawing.boxes import Pixels, draw_boxes
from cloverleaf.drawing.masks import draw_label_map
from cloverleaf.drawing.sheet import GAP, captioned, grid, legend, paper, save_picture
from cloverleaf.drawing.text import writable
from cloverleaf.structures.batch import Targets
from cloverleaf.structures.detections import Detections
from cloverleaf.structures.masks import Mask


@dataclass(frozen=True, slots=True)
class Comparison:
    """One image with what is there and what was found.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        truth_xyxy: (n, 4) boxes in pixels of ``image``.
        truth_labels: (n,).
        predictions: detections in pixels of ``image``; those to be drawn only.
        title: shown above, e.g. the file name.
        truth_masks: a mask for each true object, which is then drawn in place of its box.
    """

    image: Pixels
    truth_xyxy: npt.NDArray[Any]
    truth_labels: npt.NDArray[Any]
    predictions: Detections
    title: str = ""
    truth_masks: Sequence[Mask] | None = None


@dataclass(frozen=True, slots=True)
class PixelComparison:
    """One image with the classes that its pixels have and that they were given.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        truth, called: (H, W) classes; 255 in ``truth`` where nothing counts.
        title: shown above, e.g. the file name.
    """

    image: Pixels
    truth: npt.NDArray[Any]
    called: npt.NDArray[Any]
    title: str = ""


def draw_training_batch(
    images: Tensor, targets: Targets, names: Sequence[str], path: Path, *, most: int = 16, tile: int = 420
) -> None:
    """A grid of training images as the network sees them, after augmentation, with their boxes, masks or classes.

    Args:
        images: (B, 3, H, W) uint8 RGB.
        targets: the batch's objects, in pixels of ``images``.
        names: class names.
        path: the PNG or JPEG to write.
        most: images drawn at most.
        tile: longest side of one image in the grid, pixels.
    """
    boxes, labels = targets.boxes_xyxy.float().cpu().numpy(), targets.labels.cpu().numpy()
    owner = targets.image_index.cpu().numpy()
    tiles = []
    for k, image in enumerate(images[:most].cpu().numpy()):
        mine, picture = owner == k, image.transpose(1, 2, 0)
        if targets.semantic is not None:
            pixels = targets.semantic[k].cpu().numpy().astype(np.uint8)
            shown = draw_label_map(picture, pixels, ("background", *names), with_legend=False)
            tiles.append(draw_boxes(shown, np.zeros((0, 4)), np.zeros(0, np.int64), names, side=tile))
            continue
        masks = None if targets.masks is None else _windows(targets.masks.numpy()[mine], boxes[mine])
        tiles.append(draw_boxes(picture, boxes[mine], labels[mine], names, masks=masks, side=tile, texts="fitting"))
    save_picture(path, grid(tiles, math.ceil(math.sqrt(len(tiles)))))


def draw_predictions_beside_truth(
    items: Sequence[Comparison], names: Sequence[str], path: Path, *, tile: int = 480
) -> None:
    """Ground truth on the left, predictions with their scores on the right, two images a row.

    Args:
        items: the images; none is allowed and draws an empty sheet.
        names: class names of both sides.
        path: the PNG or JPEG to write.
        tile: longest side of one image in the sheet, pixels.
    """
    pairs = []
    for item in items:
        found = item.predictions
        truth = draw_boxes(
            item.image, item.truth_xyxy, item.truth_labels, names, masks=item.truth_masks, side=tile, texts="fitting"
        )
        guess = draw_boxes(
            item.image, found.xyxy, found.labels, names, scores=found.scores, masks=found.masks, side=tile,
            texts="fitting",
        )  # fmt: skip
        left = captioned(truth, f"Truth: {len(item.truth_labels)} objects   {_title(item.title)}".rstrip())
        right = captioned(guess, f"Found: {len(found)} predictions")
        pairs.append(np.hstack([left, paper(len(left), GAP // 2), right]))
    save_picture(path, grid(pairs, 2 if len(pairs) > 1 else 1))


def draw_pixels_beside_truth(
    items: Sequence[PixelComparison], names: Sequence[str], path: Path, *, tile: int = 480
) -> None:
    """True classes of pixels on the left, the model's on the right, two images a row, and a legend.

    Args:
        items: the images; none is allowed and draws an empty sheet.
        names: class names, the background's first.
        path: the PNG or JPEG to write.
        tile: longest side of one image in the sheet, pixels.
    """
    pairs = []
    there = {k - 1 for item in items for side in (item.truth, item.called) for k in np.unique(side).tolist()}
    for item in items:
        sides = []
        for labels, text in ((item.truth, f"Truth   {_title(item.title)}"), (item.called, "Found")):
            drawn = draw_label_map(item.image, labels, names, with_legend=False)
            drawn = draw_boxes(drawn, np.zeros((0, 4)), np.zeros(0, np.int64), names, side=tile)
            sides.append(captioned(drawn, text.rstrip()))
        pairs.append(np.hstack([sides[0], paper(len(sides[0]), GAP // 2), sides[1]]))
    sheet = grid(pairs, 2 if len(pairs) > 1 else 1)
    chosen = sorted(there & set(range(len(names) - 1)))
    save_picture(path, np.vstack([sheet, legend(names[1:], sheet.shape[1], chosen)]) if chosen else sheet)


def _title(text: str) -> str:
    return writable(text if len(text) <= 32 else "..." + text[-29:])


def _windows(masks: npt.NDArray[np.uint8], boxes_xyxy: npt.NDArray[Any]) -> list[Mask]:
    """``(n, H, W)`` masks cut to their boxes."""
    height, width = masks.shape[1:]
    low = np.floor(boxes_xyxy[:, :2]).clip(0, [width, height]).astype(int).tolist()
    high = np.ceil(boxes_xyxy[:, 2:]).clip(0, [width, height]).astype(int).tolist()
    return [
        Mask(x1, y1, mask[y1:y2, x1:x2].astype(bool))
        for mask, (x1, y1), (x2, y2) in zip(masks, low, high, strict=True)
    ]  # fmt: skip
