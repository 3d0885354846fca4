"""What to say before training a model with region proposals on objects that it is not set up for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cloverleaf.data.index import DetectionIndex
from cloverleaf.training.anchors import label_sizes

_LEAST_OVERLAP = 0.3  # below it an anchor is background (torchvision's limit for region proposals)
_MANY = 0.1


def region_advice(
    index: DetectionIndex, anchor_sides_px: Sequence[Sequence[float]], detections: int, image_size: int
) -> list[str]:
    """Sentences on objects that are too small for every anchor, and on images with too many of them.

    Args:
        index: the training labels.
        anchor_sides_px: of each level, finest first.
        detections: most objects per image that the model gives.
        image_size: network-input size.
    """
    advice = []
    sides = np.sqrt(label_sizes(index, image_size).clip(min=0).prod(1))[~np.asarray(index.crowd)]
    smallest = min(min(level) for level in anchor_sides_px)
    small = _too_small(sides, smallest)
    if small > _MANY:
        factor = 1.0
        while _too_small(sides, smallest * factor) > _MANY and smallest * factor > 2:
            factor /= 2
        better = [[max(round(side * factor), 1) for side in level] for level in anchor_sides_px]
        advice.append(
            f"at {image_size} px {small:.0%} of the objects are too small for the smallest anchor, {smallest:g} px, "
            f"and are learned badly: use larger images, or --set 'model.head.anchor_sides_px={better}'"
        )
    counts = np.diff(index.object_offsets)
    if (crowded := int((counts > detections).sum())) > 0:
        most = int(counts.max())
        advice.append(
            f"{crowded} of {len(counts)} images hold more than {detections} objects, up to {most}, and the model gives "
            f"{detections}: --set model.head.detections={most} --set evaluation.max_detections={max(most, 300)} "
            f"--set evaluation.ap_detections={most}"
        )
    return advice


def _too_small(sides: np.ndarray, anchor: float) -> float:
    """Share of objects that no anchor of that side overlaps enough, wherever it lies."""
    return float((np.square(sides) < _LEAST_OVERLAP * anchor**2).mean()) if len(sides) else 0.0
