"""Tracks on the frames of a video: boxes with their numbers, and trails."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cloverleaf.drawing.boxes import annotate_boxes
from cloverleaf.drawing.palette import class_colours
from cloverleaf.drawing.text import label_texts

Pixels = npt.NDArray[np.uint8]
_COLOURS = 24  # tracks whose numbers differ by so many share a colour


class TrackPainter:
    """Draws one frame after another; each track has a colour of its own and a trail of where it was.

    Args:
        names: class names.
        trail: frames that a trail reaches back, at least 1.
    """

    def __init__(self, names: Sequence[str], trail: int) -> None:
        import supervision as sv

        self._names = names
        palette = sv.ColorPalette([sv.Color(*colour) for colour in class_colours(_COLOURS).tolist()])
        self._trails = sv.TraceAnnotator(color=palette, trace_length=trail, thickness=2)

    def paint(
        self,
        image: Pixels,
        boxes_xyxy: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        ids: npt.NDArray[np.int64],
    ) -> Pixels:
        """A copy of the next frame with trails, boxes and ``number class``.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            boxes_xyxy: ``(n, 4)`` pixels of ``image``.
            labels: ``(n,)`` class indices.
            ids: ``(n,)`` numbers of the tracks, from 1.
        """
        import supervision as sv

        colours = (ids - 1) % _COLOURS
        canvas = np.ascontiguousarray(image[:, :, ::-1])
        found = sv.Detections(xyxy=boxes_xyxy.astype(np.float32).reshape(-1, 4), class_id=labels, tracker_id=ids)
        canvas = self._trails.annotate(canvas, found, custom_color_lookup=colours)
        scene = np.ascontiguousarray(canvas[:, :, ::-1]).astype(np.uint8)
        if not len(ids):
            return scene
        names = label_texts(self._names, labels.tolist())
        words = [f"{number} {name}" for number, name in zip(ids.tolist(), names, strict=True)]
        return annotate_boxes(scene, found.xyxy, colours, words, "all", frames=True)
