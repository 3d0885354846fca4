"""Annotated pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.structures.detections import Detections

Pixels = npt.NDArray[np.uint8]

# Distinct hues of similar weight; the text on each is black or white, whichever reads better.
COLOURS = (
    "#e6194b", "#0a84ff", "#3cb44b", "#ffb000", "#8e44ad", "#00b3b3", "#ff6f00", "#d81b9a",
    "#7cb518", "#4b5bd7", "#a05a2c", "#008060", "#ff8a80", "#b0a000", "#5c6b7a", "#b388ff",
)  # fmt: skip


def draw_detections(image: Pixels, detections: Detections, *, scores: bool = True) -> Pixels:
    """Boxes and labels over a copy of the image; lines and text follow its size.

    Args:
        image: ``(h, w, 3)`` uint8 RGB; where it is a reduced form of the original, boxes are scaled to it.
        detections: in pixels of the original image.
        scores: write the score beside the name.
    """
    import cv2
    import supervision as sv

    canvas = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # supervision draws in BGR
    if not len(detections):
        return image.copy()
    height, width = image.shape[:2]
    detections = detections[::-1]  # the best on top
    found = detections.to_supervision()
    found.xyxy *= np.array([width / detections.image_hw[1], height / detections.image_hw[0]] * 2, np.float32)
    side = float(np.sqrt(height * width))
    thickness = max(1, round(side / 320))
    text_scale = max(0.35, side / 1600)
    palette, text_palette = _palettes(sv)
    sv.BoxAnnotator(color=palette, thickness=thickness).annotate(canvas, found)
    texts = [_writable(name) or f"class {label}" for _, _, label, name in detections]
    if scores:
        texts = [f"{text} {score:.2f}" for text, score in zip(texts, detections.scores.tolist(), strict=True)]
    text_thickness, padding = max(1, round(text_scale * 1.5)), max(2, round(text_scale * 6))
    sizes = [cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, text_scale, text_thickness)[0] for text in texts]
    found.xyxy = _label_corners(found.xyxy, np.array(sizes) + 2 * padding, width)
    sv.LabelAnnotator(
        color=palette,
        text_color=text_palette,
        text_scale=text_scale,
        text_thickness=text_thickness,
        text_padding=padding,
    ).annotate(canvas, found, labels=texts)
    return cv2.cvtColor(canvas, cv2.COLOR_BGR2RGB)


def _writable(text: str) -> str:
    """``text`` where OpenCV can write it (before version 5 only ASCII), else nothing."""
    import cv2

    return text if text.isascii() or int(cv2.__version__.split(".")[0]) >= 5 else ""


def _label_corners(xyxy: npt.NDArray[Any], sizes_wh: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    """Boxes ``(n, 4)`` moved so that a label of its size, standing on the upper left corner, stays in the picture."""
    moved = xyxy.copy()
    moved[:, 0] = np.clip(moved[:, 0], 0, np.maximum(width - sizes_wh[:, 0], 0))
    moved[:, 1] = np.maximum(moved[:, 1], sizes_wh[:, 1])
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    return moved


def _palettes(sv: Any) -> tuple[Any, Any]:
    """Colours of the boxes, and of the text upon each."""
    colours = [sv.Color.from_hex(value) for value in COLOURS]
    dark = [0.299 * c.r + 0.587 * c.g + 0.114 * c.b < 140 for c in colours]
    return sv.ColorPalette(colours), sv.ColorPalette([sv.Color.WHITE if d else sv.Color.BLACK for d in dark])
