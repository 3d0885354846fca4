"""How tracks are made, and what comes out of a frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from cloverleaf.errors import ConfigError
from cloverleaf.structures import Detections

PENDING = -1  # identity of a detection that belongs to no track, or to one that is not sure yet
MOTION_MEMORY, APPEARANCE_MEMORY = 1.0, 20.0  # seconds
APPEARANCE = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackOptions:
    """How tracks are made.

    Attributes:
        start: score from which a detection may begin a track, in (0, 1]; weaker ones only continue tracks, as in
            ByteTrack (arXiv 2110.06864).
        appearance: how much the embeddings count against the overlap with where the motion leads, in [0, 1]; 0 tracks
            by motion alone, and so does any value where the model gives no embeddings.
        same: cosine of two embeddings above which they speak for the same individual and below against it, in (-1, 1).
        memory: seconds for which a lost track is remembered; None takes 1 by motion alone and 20 with embeddings.
        across_classes: a track may continue in a detection of another class; a predictor with ``class_agnostic`` goes
            with it.

    Raises:
        ConfigError: a value is out of range.
    """

    start: float = 0.4
    appearance: float = APPEARANCE
    same: float = 0.5
    memory: float | None = None
    across_classes: bool = False

    def __post_init__(self) -> None:
        checks = (
            ("start", 0 < self.start <= 1, "a score above 0, at most 1"),
            ("appearance", 0 <= self.appearance <= 1, "0 (motion alone) to 1"),
            ("same", -1 < self.same < 1, "a cosine between -1 and 1"),
            ("memory", self.memory is None or 0 <= self.memory <= 3600, "seconds from 0 to 3600"),
        )
        for name, good, wanted in checks:
            if not good:
                raise ConfigError(f"{name} {getattr(self, name)} is out of range", f"wanted {wanted}", "change it")


@dataclass(frozen=True, slots=True)
class Tracked:
    """One frame and who is in it.

    Attributes:
        frame: number of the frame from 0.
        time: of the frame in seconds.
        detections: what was found.
        ids: ``(n,)`` int64, the track of each detection, numbered from 1; `PENDING` for detections of no track.
        confirms: ``(k, 2)`` int64: detections of the frame before, by their place in it, and the tracks which this
            frame has made sure of that began there.
    """

    frame: int
    time: float
    detections: Detections
    ids: npt.NDArray[np.int64]
    confirms: npt.NDArray[np.int64]

    def settled(self, confirms: npt.NDArray[np.int64]) -> Tracked:
        """With the tracks that the next frame has made sure of, and without detections of no track."""
        ids = self.ids.copy()
        ids[confirms[:, 0]] = confirms[:, 1]
        kept = ids != PENDING
        return replace(self, detections=self.detections[kept], ids=ids[kept])
