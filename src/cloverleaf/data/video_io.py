"""Videos frame by frame, in RGB."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.errors import ImageError

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What the container says.

    Attributes:
        fps: frames per second; 25 where the container does not say.
        frames: number of frames, 0 where unknown; it may be wrong.
    """

    fps: float
    frames: int


def video_facts(path: Path) -> VideoFacts:
    """Read the header.

    Raises:
        ImageError: not a video that can be opened.
    """
    with _opened(path) as capture:
        fps = float(capture.get(cv2.CAP_PROP_FPS))
        frames = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
    return VideoFacts(fps if 0 < fps < 1000 else 25.0, frames)


def read_frames(path: Path) -> Iterator[Pixels]:
    """Yield every frame as ``(H, W, 3)`` uint8 RGB.

    Raises:
        ImageError: the video cannot be opened or has no frame that can be decoded.
    """
    return (frame for _, frame in read_timed_frames(path))


def read_timed_frames(path: Path) -> Iterator[tuple[float, Pixels]]:
    """Yield every frame as its time in seconds, as the container says, and ``(H, W, 3)`` uint8 RGB.

    Raises:
        ImageError: the video cannot be opened or has no frame that can be decoded.
    """
    with _opened(path) as capture:
        good, frame = capture.read()
        if not good:
            raise ImageError(
                f"{path} has no frame that can be decoded", "the first one fails", "convert the video again"
            )
        while good:
            yield capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            good, frame = capture.read()


class FrameWriter(Protocol):
    """Takes one RGB frame after another."""

    def __call__(self, frame: Pixels) -> None:
        """Append ``(H, W, 3)`` uint8 RGB."""
        ...


@contextmanager
def write_video(path: Path, size_hw: tuple[int, int], fps: float) -> Iterator[FrameWriter]:
    """Write an mp4; frames of another size than ``size_hw`` are refused by the codec, so they must not come.

    Raises:
        ImageError: no encoder, or the folder cannot be written.
    """
    import supervision as sv

    info = sv.VideoInfo(width=size_hw[1], height=size_hw[0], fps=fps, total_frames=0)
    try:
        with sv.VideoSink(str(path), info) as sink:
            yield lambda frame: sink.write_frame(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    except RuntimeError as error:
        raise ImageError(f"cannot write {path}", str(error), "check the folder, or use --no-save") from error


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise ImageError(f"cannot read {path}", "no such file", "check the path")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # quiet: a damaged video is told by the error below
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise ImageError(
                f"{path} is not a video", "OpenCV cannot open it", "convert it, for example to mp4 with H.264"
            )
        yield capture
    finally:
        capture.release()
