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
from cloverleaf.drawing.sheet import GAP, captioned, grid, paper, save_picture
from cloverleaf.drawing.text import writable
from cloverleaf.structures.batch import Targets
from cloverleaf.structures.detections import Detections


@dataclass(frozen=True, slots=True)
class Comparison:
    """One image with what is there and what was found.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        truth_xyxy: (n, 4) boxes in pixels of ``image``.
        truth_labels: (n,).
        predictions: detections in pixels of ``image``; those to be drawn only.
        title: shown above, e.g. the file name.
    """

    image: Pixels
    truth_xyxy: npt.NDArray[Any]
    truth_labels: npt.NDArray[Any]
    predictions: Detections
    title: str = ""


def draw_training_batch(
    images: Tensor, targets: Targets, names: Sequence[str], path: Path, *, most: int = 16, tile: int = 420
) -> None:
    """A grid of training images as the network sees them, after augmentation, with their boxes.

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
        mine = owner == k
        tiles.append(draw_boxes(image.transpose(1, 2, 0), boxes[mine], labels[mine], names, side=tile, texts="fitting"))
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
        truth = draw_boxes(item.image, item.truth_xyxy, item.truth_labels, names, side=tile, texts="fitting")
        guess = draw_boxes(item.image, found.xyxy, found.labels, names, scores=found.scores, side=tile, texts="fitting")
        title = writable(item.title if len(item.title) <= 32 else "..." + item.title[-29:])
        left = captioned(truth, f"Truth: {len(item.truth_labels)} objects   {title}".rstrip())
        right = captioned(guess, f"Found: {len(found)} predictions")
        pairs.append(np.hstack([left, paper(len(left), GAP // 2), right]))
    save_picture(path, grid(pairs, 2 if len(pairs) > 1 else 1))
