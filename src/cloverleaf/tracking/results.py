"""The files that tracking a video leaves: all of them whole, or none."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from cloverleaf.data.mot import mot_line
from cloverleaf.data.video_io import FrameWriter, write_video
from cloverleaf.drawing.tracks import TrackPainter
from cloverleaf.tracking.footage import Footage
from cloverleaf.tracking.options import Tracked

Pixels = npt.NDArray[np.uint8]
_TRAIL = 1.5  # seconds


@dataclass(slots=True)
class TrackSummary:
    """One track over a whole video.

    Attributes:
        name: the class that it was seen as last.
        first, last: frames from 0.
        start, end: their times in seconds.
        boxes: frames in which it was seen.
        score: sum of their scores.
    """

    name: str
    first: int
    last: int
    start: float
    end: float
    boxes: int = 0
    score: float = 0.0

    def as_json(self, identity: int) -> dict[str, Any]:
        """With the mean score."""
        times = {"start": round(self.start, 4), "end": round(self.end, 4)}
        seen = {"frames": self.boxes, "score": round(self.score / self.boxes, 5)}
        return {"id": identity, "name": self.name, "first": self.first, "last": self.last, **times, **seen}


@dataclass(slots=True)
class Summary:
    """What has been seen so far: as large as there are tracks, not as there are frames."""

    frames: int = 0
    tracks: dict[int, TrackSummary] = field(default_factory=dict)

    def add(self, tracked: Tracked) -> None:
        """Count one frame."""
        self.frames += 1
        found = tracked.detections
        for identity, score, name in zip(tracked.ids.tolist(), found.scores.tolist(), found.names, strict=True):
            new = TrackSummary(name, tracked.frame, tracked.frame, tracked.time, tracked.time)
            track = self.tracks.setdefault(identity, new)
            track.name, track.last, track.end = name, tracked.frame, tracked.time
            track.boxes, track.score = track.boxes + 1, track.score + score


class TrackFiles:
    """Writes the files of one video, frame by frame; use `track_files`."""

    def __init__(self, footage: Footage, text: TextIO, records: TextIO | None, video: Path | None) -> None:
        self.summary = Summary()
        self._footage, self._text, self._records, self._video = footage, text, records, video
        self._write: FrameWriter | None = None
        self._painter: TrackPainter | None = None
        self._open = ExitStack()

    def add(self, pixels: Pixels, tracked: Tracked) -> None:
        """Write one frame, the next one."""
        if self.summary.frames == 0:
            self._begin(pixels, tracked)
        elif self._records is not None:
            self._records.write(",\n")
        self.summary.add(tracked)
        found = tracked.detections
        xywh = np.concatenate([found.xyxy[:, :2], found.xyxy[:, 2:] - found.xyxy[:, :2]], axis=1).tolist()
        rows = list(zip(tracked.ids.tolist(), xywh, found.scores.tolist(), found.labels.tolist(), strict=True))
        for identity, box, score, label in sorted(rows):
            self._text.write(mot_line(tracked.frame + 1, identity, box, score, label + 1) + "\n")
        if self._records is not None:
            boxes = [
                {"id": identity, "label": label, "score": round(score, 5), "bbox": [round(value, 2) for value in box]}
                for identity, box, score, label in sorted(rows)
            ]
            record = {"frame": tracked.frame, "time": round(tracked.time, 4), "tracks": boxes}
            json.dump(record, self._records, ensure_ascii=False)
        if self._write is not None and self._painter is not None:
            self._write(self._painter.paint(pixels, found.xyxy, found.labels, tracked.ids))

    def _begin(self, pixels: Pixels, tracked: Tracked) -> None:
        """What the first frame decides."""
        height, width = pixels.shape[:2]
        names = tracked.detections.class_names
        if self._records is not None:
            head = {
                "video": str(self._footage.path), "fps": self._footage.fps, "height": height, "width": width,
                "categories": [{"id": k, "name": name} for k, name in enumerate(names)],
            }  # fmt: skip
            self._records.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "frames": [\n')
        if self._video is not None:
            self._painter = TrackPainter(names, max(1, round(_TRAIL * self._footage.fps)))
            self._write = self._open.enter_context(write_video(self._video, (height, width), self._footage.fps))

    def finish(self) -> None:
        """End every file."""
        if self._records is not None:
            tracks = [track.as_json(identity) for identity, track in sorted(self.summary.tracks.items())]
            self._records.write('\n], "tracks": ' + json.dumps(tracks, ensure_ascii=False) + "}\n")
        self.close()

    def close(self) -> None:
        """Let go of the video."""
        self._open.close()


@contextmanager
def track_files(folder: Path, stem: str, footage: Footage, *, video: bool, json_file: bool) -> Iterator[TrackFiles]:
    """Files that appear in ``folder`` as ``stem.txt`` (and ``.json``, ``.mp4``) when the block ends well.

    While the block runs they lie in a hidden folder beside; if it raises they are removed.
    """
    hidden = folder / f".{stem}.{secrets.token_hex(4)}.tmp"
    hidden.mkdir(parents=True)
    try:
        with ExitStack() as stack:
            text = stack.enter_context((hidden / f"{stem}.txt").open("x", encoding="utf-8"))
            records = stack.enter_context((hidden / f"{stem}.json").open("x", encoding="utf-8")) if json_file else None
            files = TrackFiles(footage, text, records, hidden / f"{stem}.mp4" if video else None)
            stack.callback(files.close)
            yield files
            files.finish()
        for path in sorted(hidden.iterdir()):
            path.replace(folder / path.name)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
