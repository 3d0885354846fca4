"""How much a detection looks like the continuation of a track: by place, by appearance, by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import supervision as sv
from trackers import BaseIoU

from cloverleaf.structures import Detections
from cloverleaf.tracking.options import MOTION_MEMORY, TrackOptions

Numbers = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Look:
    """What a track has looked like: its class and ``(D,)`` embedding of length 1, None without embeddings."""

    label: int
    embedding: Numbers | None

    def then(self, label: int, embedding: Numbers | None, keep: float = 0.9) -> Look:
        """After another sight of it: a moving average of the embeddings, as in JDE (arXiv 1909.12605)."""
        if self.embedding is None or embedding is None:
            return Look(label, embedding)
        mixed = keep * self.embedding + (1 - keep) * embedding
        return Look(label, mixed / max(float(np.linalg.norm(mixed)), 1e-6))


class Likeness(BaseIoU):
    """Overlap with the predicted place and likeness of the embeddings, in one number per track and detection.

    The tracking library takes a measure of similarity of its user's; it hands it boxes, which here are known again as
    those of the tracks and of the detections. With w the weight of appearance, s the cosine that speaks neither for
    nor against, and c the cosine of the embeddings,

        likeness = (1 - w) * IoU + w * clip((c - s) / (1 - s), 0, 1)

    and 0 between classes. If a track was not seen a frame ago, c below s is a veto: the likeness is 0. Of one that was
    seen it is none: motion is sure then, and a look that differs may be that of something half hidden. A place that
    was predicted more than a second ago counts nothing: only the look brings such a track back. Where either has no
    embedding, and for weak detections, the likeness is the IoU (docs/fidelity.md).
    """

    def __init__(self, options: TrackOptions) -> None:
        self._options = options
        self._tracks: Sequence[Any] = ()
        self._looks: Mapping[Any, Look] = {}
        self._boxes: Numbers = np.zeros((0, 4))
        self._detections: Detections | None = None
        self._seconds = 0.0

    def expect(
        self, tracks: Sequence[Any], looks: Mapping[Any, Look], boxes: Numbers, detections: Detections, frame: float
    ) -> None:
        """Say what will be compared.

        Args:
            tracks: of the library, which moves them before it compares.
            looks: what each has looked like.
            boxes: ``(n, 4)``, no two alike.
            detections: what is known of them besides.
            frame: seconds that a frame lasts.
        """
        self._tracks, self._looks, self._boxes, self._detections, self._seconds = (
            tracks, looks, boxes, detections, frame,
        )  # fmt: skip

    def _compute(self, boxes_1: Numbers, boxes_2: Numbers) -> Numbers:
        """``(N, M)`` between tracks at ``boxes_1`` and detections at ``boxes_2``."""
        assert self._detections is not None
        moved = np.array([track.get_state_bbox() for track in self._tracks])
        tracks = [self._tracks[k] for k in rows_of(moved, boxes_1).tolist()]
        found = self._detections[rows_of(self._boxes, boxes_2)]
        looks = [self._looks[track] for track in tracks]
        missed = np.array([track.time_since_update for track in tracks])  # 1 of a track that was seen a frame ago
        likeness = sv.box_iou_batch(boxes_1, boxes_2) * (missed * self._seconds <= MOTION_MEMORY)[:, None]
        if self._options.appearance and found.embeddings is not None:
            likeness = self._with_appearance(likeness, looks, found, missed > 1)
        if not self._options.across_classes:
            likeness = likeness * (np.array([look.label for look in looks])[:, None] == found.labels[None])
        return likeness

    def _with_appearance(self, overlap: Numbers, looks: Sequence[Look], found: Detections, hidden: Numbers) -> Numbers:
        """``(N, M)`` overlaps mixed with the likeness of the embeddings; ``hidden`` ``(N,)`` tracks can be refused."""
        assert found.embeddings is not None
        none = np.zeros(found.embeddings.shape[1])
        cosine = np.array([none if look.embedding is None else look.embedding for look in looks]) @ found.embeddings.T
        weight, same = self._options.appearance, self._options.same
        mixed = (1 - weight) * overlap + weight * np.clip((cosine - same) / (1 - same), 0, 1)
        mixed = np.where(hidden[:, None] & (cosine < same), 0, mixed)
        strong = found.scores >= self._options.start
        known = np.array([look.embedding is not None for look in looks])
        return np.where(known[:, None] & strong[None], mixed, overlap)


def rows_of(known: Numbers, asked: Numbers) -> npt.NDArray[np.int64]:
    """``(m,)`` places in ``known`` ``(n, 4)``, whose rows differ, of the rows of ``asked`` ``(m, 4)``, all in it."""
    return np.abs(known[None] - asked[:, None]).sum(2).argmin(1)
