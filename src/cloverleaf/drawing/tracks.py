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
_GAP = 3  # frames without a sight after which a trail begins anew


class TrackPainter:
    """Draws one frame after another; each track has a colour of its own and a trail of where it was.

    Args:
        names: class names.
        trail: frames that a trail reaches back, at least 1.
    """

    def __init__(self, names: Sequence[str], trail: int) -> None:
        import supervision as sv

        self._names, self._length = names, trail
        self._frame = self._pieces = 0
        self._seen: dict[int, tuple[int, int]] = {}  # of each track the last frame and the number of its trail
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
        boxes = boxes_xyxy.astype(np.float32).reshape(-1, 4)
        found = sv.Detections(xyxy=boxes, class_id=labels, tracker_id=self._trails_of(ids.tolist()))
        canvas = self._trails.annotate(canvas, found, custom_color_lookup=colours)
        scene = np.ascontiguousarray(canvas[:, :, ::-1]).astype(np.uint8)
        if not len(ids):
            return scene
        names = label_texts(self._names, labels.tolist())
        words = [f"{number} {name}" for number, name in zip(ids.tolist(), names, strict=True)]
        return annotate_boxes(scene, boxes, colours, words, "all", frames=True)

    def _trails_of(self, ids: Sequence[int]) -> npt.NDArray[np.int64]:
        """``(n,)`` numbers of trails: a track that was away gets a new one."""
        self._frame += 1
        for identity in ids:
            last, piece = self._seen.get(identity, (-_GAP - 1, 0))
            if self._frame - last > _GAP:
                piece = self._pieces = self._pieces + 1
            self._seen[identity] = self._frame, piece
        self._seen = {key: seen for key, seen in self._seen.items() if self._frame - seen[0] <= self._length + _GAP}
        return np.array([self._seen[identity][1] for identity in ids], np.int64)
