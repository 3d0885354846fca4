"""Annotated pictures."""

from __future__ import annotations

import numpy as np

from cloverleaf.drawing.boxes import Pixels, draw_boxes
from cloverleaf.structures.detections import Detections


def draw_detections(image: Pixels, detections: Detections, *, scores: bool = True) -> Pixels:
    """Boxes and labels over a copy of the image; lines and text follow its size.

    Args:
        image: ``(h, w, 3)`` uint8 RGB; where it is a reduced form of the original, boxes are scaled to it.
        detections: in pixels of the original image.
        scores: write the score beside the name.
    """
    (height, width), (original_height, original_width) = image.shape[:2], detections.image_hw
    boxes = detections.xyxy * np.array([width / original_width, height / original_height] * 2, np.float32)
    found = detections.scores if scores else None
    return draw_boxes(image, boxes, detections.labels, detections.class_names, scores=found)
