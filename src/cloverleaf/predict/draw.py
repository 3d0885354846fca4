"""Annotated pictures."""

from __future__ import annotations

import cv2
import numpy as np

from cloverleaf.drawing.boxes import Pixels, draw_boxes
from cloverleaf.drawing.masks import draw_label_map, scaled
from cloverleaf.drawing.tags import draw_tags
from cloverleaf.reports.classes import draw_classified
from cloverleaf.structures import Classification, Detections, LabelMap


def draw_result(image: Pixels, result: Detections | LabelMap | Classification) -> Pixels:
    """Whatever was found, over a copy of the image (of label maps with a legend below it, of detections with tags these
    below it, of classes below it only)."""
    if isinstance(result, Classification):
        return draw_classified(image, result.top())
    if isinstance(result, LabelMap):
        return draw_segments(image, result)
    drawn = draw_detections(image, result)
    return drawn if result.tags is None else draw_tags(drawn, result.tagged())


def draw_detections(image: Pixels, detections: Detections, *, scores: bool = True) -> Pixels:
    """Boxes or, where there are masks, masks, and labels over a copy of the image; lines and text follow its size.

    Args:
        image: ``(h, w, 3)`` uint8 RGB; where it is a reduced form of the original, boxes and masks are scaled to it.
        detections: in pixels of the original image.
        scores: write the score beside the name.
    """
    (height, width), (original_height, original_width) = image.shape[:2], detections.image_hw
    boxes = detections.xyxy * np.array([width / original_width, height / original_height] * 2, np.float32)
    found = detections.scores if scores else None
    if detections.masks is None:
        return draw_boxes(image, boxes, detections.labels, detections.class_names, scores=found)
    masks = scaled(detections.masks, detections.image_hw, (height, width))
    names = detections.class_names
    return draw_boxes(image, boxes, detections.labels, names, scores=found, masks=masks, texts="fitting")


def draw_segments(image: Pixels, found: LabelMap, *, with_legend: bool = True) -> Pixels:
    """Colours of the classes over a copy of the image, which may be a reduced form of the original.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        found: in pixels of the original image.
        with_legend: add a strip that names the colours below the picture.
    """
    labels = found.labels
    if labels.shape != image.shape[:2]:
        labels = cv2.resize(labels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return draw_label_map(image, labels, found.class_names, with_legend=with_legend)
