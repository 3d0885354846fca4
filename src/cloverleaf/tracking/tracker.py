"""Detections of one frame after another to tracks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from cloverleaf.errors import ConfigError
from cloverleaf.structures import Detections
from cloverleaf.tracking.extras import require_trackers
from cloverleaf.tracking.options import APPEARANCE_MEMORY, MOTION_MEMORY, PENDING, Tracked, TrackOptions

if TYPE_CHECKING:
    from cloverleaf.tracking.likeness import Likeness, Look

_LEAST_LIKENESS = 0.1
_FRAMES_TO_CONFIRM = 2
_BUFFER_FPS = 30  # the library counts its memory in frames at this rate
Item = TypeVar("Item")


class Tracker:
    """Gives every detection the number of its individual's track, frame by frame.

    Motion (a Kalman filter per track) and assignment are those of ByteTrack (arXiv 2110.06864) in the `trackers`
    library; detections with embeddings are besides told apart by their looks, and known again after they were hidden
    or away. Memory does not grow with the video.

    Args:
        fps: frames per second of the video.
        options: how tracks are made.

    Raises:
        MissingExtraError: the extra `track` is not installed.

    Example:
        >>> tracker = cloverleaf.Tracker(fps=25)  # doctest: +SKIP
        >>> for number, image in enumerate(frames):  # doctest: +SKIP
        ...     seen = tracker.update(predictor(image), number / 25)
        ...     print(seen.ids, seen.detections.xyxy)
    """

    def __init__(self, *, fps: float = 25.0, options: TrackOptions | None = None) -> None:
        require_trackers()
        if not 0 < fps <= 1000:
            raise ConfigError(f"{fps} frames per second are out of range", "wanted above 0, at most 1000", "change it")
        self.fps = fps
        self.options = options or TrackOptions()
        self._library: Any = None
        self._likeness: Likeness | None = None
        self._looks: dict[Any, Look] = {}
        self._begun: dict[Any, int] = {}
        self._frame = 0
        self._time = -np.inf

    def update(self, detections: Detections, time: float | None = None) -> Tracked:
        """The tracks of one frame.

        A track gets its number when it is seen for the second frame in a row; `settled` gives it to its first frame.

        Args:
            detections: of the next frame, with weak ones (0.1 and above), which continue tracks through occlusions.
            time: of the frame in seconds; None takes the frame rate. One that does not come after the last one's is
                replaced by what the frame rate says.
        """
        if self._library is None:
            self._build(embedded=detections.embeddings is not None)
        time = self._frame / self.fps if time is None else time
        self._time = time if time > self._time else self._time + 1 / self.fps
        boxes = _all_different(detections.xyxy)
        ids = self._associate(detections, boxes)
        seen, confirms = self._remember(detections, boxes, ids)
        tracked = Tracked(self._frame, self._time, detections, ids, confirms)
        self._looks, self._frame = seen, self._frame + 1
        return tracked

    def _build(self, *, embedded: bool) -> None:
        """The library's tracker, once it is known whether there are embeddings."""
        from trackers import ByteTrackTracker

        from cloverleaf.tracking.likeness import Likeness

        usual = APPEARANCE_MEMORY if embedded and self.options.appearance else MOTION_MEMORY
        memory = usual if self.options.memory is None else self.options.memory
        self._likeness = Likeness(self.options)
        self._library = ByteTrackTracker(
            lost_track_buffer=round(memory * _BUFFER_FPS),
            frame_rate=self.fps,
            track_activation_threshold=self.options.start,
            minimum_consecutive_frames=_FRAMES_TO_CONFIRM,
            minimum_iou_threshold=_LEAST_LIKENESS,
            high_conf_det_threshold=self.options.start,
            iou=self._likeness,
        )

    def _associate(self, detections: Detections, boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """``(n,)`` tracks of the detections, `PENDING` where there is none yet."""
        import supervision as sv

        assert self._likeness is not None
        given = sv.Detections(xyxy=boxes, confidence=detections.scores, data={"place": np.arange(len(detections))})
        self._likeness.expect(self._library.tracks, self._looks, boxes, detections, 1 / self.fps)
        result = self._library.update(given, timestamp=self._time)
        ids = np.full(len(detections), PENDING, np.int64)
        if len(result):
            ids[result.data["place"]] = np.where(result.tracker_id >= 0, result.tracker_id + 1, PENDING)
        return ids

    def _remember(
        self, detections: Detections, boxes: npt.NDArray[np.float64], ids: npt.NDArray[np.int64]
    ) -> tuple[dict[Any, Look], npt.NDArray[np.int64]]:
        """What every living track has looked like, and which tracks are sure now that began a frame ago."""
        from cloverleaf.tracking.likeness import rows_of

        place_of = {identity: place for place, identity in enumerate(ids.tolist()) if identity != PENDING}
        looks: dict[Any, Look] = {}
        begun: dict[Any, int] = {}
        confirms = []
        for track in self._library.tracks:
            identity = track.tracker_id + 1 if track.tracker_id >= 0 else PENDING
            if identity == PENDING:
                place = begun[track] = int(rows_of(boxes, np.array([track.get_state_bbox()]))[0])
            else:
                place = place_of.get(identity, PENDING)
                if track in self._begun:
                    confirms.append((self._begun[track], identity))
            looks[track] = self._looks[track] if place == PENDING else self._look(track, detections, place)
        self._begun = begun
        return looks, np.array(confirms, np.int64).reshape(-1, 2)

    def _look(self, track: Any, detections: Detections, place: int) -> Look:
        """Of a track that was seen at a place among the detections; weak ones do not change what it looks like."""
        from cloverleaf.tracking.likeness import Look

        label = int(detections.labels[place])
        embedding = None if detections.embeddings is None else detections.embeddings[place].astype(np.float64)
        before = self._looks.get(track)
        if before is None:
            return Look(label, embedding)
        return before.then(label, embedding) if detections.scores[place] >= self.options.start else before


def settled(stream: Iterable[tuple[Item, Tracked]]) -> Iterator[tuple[Item, Tracked]]:
    """Every frame with whatever belongs to it, one frame late, when it is known which tracks have begun in it."""
    before: tuple[Item, Tracked] | None = None
    for item, tracked in stream:
        if before is not None:
            yield before[0], before[1].settled(tracked.confirms)
        before = item, tracked
    if before is not None:
        yield before[0], before[1].settled(np.zeros((0, 2), np.int64))


def _all_different(xyxy: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Boxes ``(n, 4)`` of which no two are alike: repeated ones are moved by thousandths of a pixel."""
    boxes = xyxy.astype(np.float64).reshape(-1, 4)
    _, first = np.unique(boxes, axis=0, return_index=True)
    repeated = np.setdiff1d(np.arange(len(boxes)), first)
    boxes[repeated] += 1e-3 * (1 + np.arange(len(repeated)))[:, None]
    return boxes
