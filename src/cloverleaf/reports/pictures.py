"""Photographs with boxes on them: training batches, and predictions beside the ground truth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

from cloverleaf.reports.style import COLOURS, save_picture
from cloverleaf.structures.batch import Targets
from cloverleaf.structures.detections import Detections

Picture = npt.NDArray[np.uint8]
_GAP, _PAPER, _INK = 8, (246, 247, 249), (31, 41, 51)


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

    image: Picture
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
        tiles.append(
            draw_boxes(np.ascontiguousarray(image.transpose(1, 2, 0)), boxes[mine], labels[mine], names, side=tile)
        )
    save_picture(path, _grid(tiles, math.ceil(math.sqrt(len(tiles)))))


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
        truth = draw_boxes(item.image, item.truth_xyxy, item.truth_labels, names, side=tile)
        guess = draw_boxes(item.image, found.xyxy, found.labels, names, scores=found.scores, side=tile)
        counts = f"{len(item.truth_labels)} objects", f"{len(found)} predictions"
        title = item.title if len(item.title) <= 32 else "…" + item.title[-31:]
        left = _caption(truth, f"Truth: {counts[0]}   {_ascii(title)}".rstrip())
        right = _caption(guess, f"Found: {counts[1]}")
        seam = np.full((len(left), _GAP // 2, 3), _PAPER, np.uint8)
        pairs.append(np.hstack([left, seam, right]))
    save_picture(path, _grid(pairs, 2 if len(pairs) > 1 else 1))


def draw_boxes(
    image: Picture,
    boxes_xyxy: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    names: Sequence[str],
    *,
    scores: npt.NDArray[Any] | None = None,
    side: int | None = None,
) -> Picture:
    """A copy of ``image``, scaled so that its longest side is ``side``, with labelled boxes in the classes' colours.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes_xyxy: (n, 4) pixels of ``image``.
        labels: (n,) class indices.
        names: class names.
        scores: (n,) printed behind the names.
        side: longest side of the result; None leaves the size.
    """
    import supervision as sv

    height, width = image.shape[:2]
    zoom = 1.0 if side is None else side / max(height, width)
    size = max(round(width * zoom), 1), max(round(height * zoom), 1)
    scene = cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
    if not len(labels):
        return np.ascontiguousarray(scene)
    boxes = np.asarray(boxes_xyxy, dtype=np.float32).reshape(-1, 4) * zoom
    found = sv.Detections(xyxy=boxes, class_id=np.asarray(labels).astype(int))
    words = [_ascii(names[label]) or f"class {label}" for label in found.class_id]
    if scores is not None:
        words = [f"{word} {score:.2f}" for word, score in zip(words, scores, strict=True)]
    palette = sv.ColorPalette.from_hex(list(COLOURS))
    scale = 0.36 if len(labels) <= 40 else 0.3
    bgr = np.ascontiguousarray(scene[:, :, ::-1])
    bgr = sv.BoxAnnotator(color=palette, thickness=2 if max(size) >= 400 else 1).annotate(bgr, found)
    annotator = sv.LabelAnnotator(
        color=palette, text_color=sv.Color.WHITE, text_scale=scale, text_padding=2, text_thickness=1
    )
    bgr = annotator.annotate(bgr, found, labels=words)
    return np.ascontiguousarray(bgr[:, :, ::-1])


def _ascii(text: str) -> str:
    """What OpenCV's built-in fonts can write."""
    return text if text.isascii() and text.isprintable() else ""


def _caption(image: Picture, text: str) -> Picture:
    """The image with a line of text above it."""
    strip = np.full((26, image.shape[1], 3), _PAPER, np.uint8)
    cv2.putText(strip, text.replace("…", "..."), (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
    return np.vstack([strip, image])


def _grid(tiles: Sequence[Picture], columns: int) -> Picture:
    """Tiles, of any sizes, in rows of ``columns``, centred in equal cells."""
    if not tiles:
        return np.full((64, 64, 3), _PAPER, np.uint8)
    height, width = max(t.shape[0] for t in tiles), max(t.shape[1] for t in tiles)
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    sheet = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), _PAPER, np.uint8)
    for k, tile in enumerate(tiles):
        row, column = divmod(k, columns)
        y = _GAP + row * (height + _GAP) + (height - tile.shape[0]) // 2
        x = _GAP + column * (width + _GAP) + (width - tile.shape[1]) // 2
        sheet[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return sheet
