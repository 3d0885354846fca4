"""What is tracked through: a video, or a folder of frames."""

from __future__ import annotations

import configparser
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloverleaf.data.video_io import read_timed_frames, video_facts
from cloverleaf.errors import ConfigError, DataError, ImageError
from cloverleaf.predict.sources import IMAGE_SUFFIXES, find_sources, read_picture

Pixels = npt.NDArray[np.uint8]
FOLDER_FPS = 25.0


@dataclass(frozen=True, slots=True)
class Footage:
    """Frames in order.

    Attributes:
        path: a video file or a folder of frames.
        fps: frames per second.
        expected: number of frames, 0 where unknown; of a video it is what the container says and may be wrong.
        files: of a folder the frames, in natural order; empty for a video.
    """

    path: Path
    fps: float
    expected: int
    files: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """For the names of results: that of the file without its suffix, or of the folder."""
        return self.path.name if self.files else self.path.stem

    def frames(self) -> Iterator[tuple[float, Pixels]]:
        """Time in seconds and ``(H, W, 3)`` uint8 RGB of every frame, all of one size.

        Raises:
            ImageError: a frame or the video cannot be read, or a frame has another size than the first.
        """
        size_hw: tuple[int, ...] = ()
        for number, (time, pixels) in enumerate(self._read()):
            size_hw = size_hw or pixels.shape[:2]
            if pixels.shape[:2] != size_hw:
                raise ImageError(
                    f"{self.files[number] if self.files else self.path}: frame {number} has another size",
                    f"{pixels.shape[1]}x{pixels.shape[0]} after frames of {size_hw[1]}x{size_hw[0]}",
                    "track videos and folders of frames of one size",
                )
            yield time, pixels

    def _read(self) -> Iterator[tuple[float, Pixels]]:
        if not self.files:
            return read_timed_frames(self.path)
        return ((number / self.fps, read_picture(file).pixels) for number, file in enumerate(self.files))


def open_footage(source: str | os.PathLike[str], fps: float | None = None) -> Footage:
    """Look at a video file, a folder of frames, or a sequence as MOTChallenge lays it out (``img1``, ``seqinfo.ini``).

    Args:
        source: the file or folder.
        fps: frames per second of a folder; None takes what ``seqinfo.ini`` says, or else 25.

    Raises:
        DataError: nothing there, or no video and no frames.
        ConfigError: a rate that is out of range, or for a video.
    """
    path = Path(source)
    if fps is not None and not 0 < fps <= 1000:
        raise ConfigError(f"{fps} frames per second are out of range", "wanted above 0, at most 1000", "change --fps")
    if path.is_dir():
        return _open_folder(path, fps)
    if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
        raise DataError(f"{path} is one image", "tracks need several frames", "name a video or a folder of frames")
    facts = video_facts(path)
    if fps is not None:
        raise ConfigError(f"--fps has no effect on {path}", "a video says its own times", "leave it out")
    return Footage(path, facts.fps, facts.frames)


def _open_folder(path: Path, fps: float | None) -> Footage:
    sequence = path / "img1"
    place = sequence if sequence.is_dir() else path
    images = find_sources([place]).images if any(place.iterdir()) else ()
    if not images:
        raise DataError(f"{path} holds no frames", "no image files in it", "name a video or a folder of frames")
    if fps is None and sequence.is_dir():
        fps = _sequence_fps(path / "seqinfo.ini")
    return Footage(path, fps or FOLDER_FPS, len(images), images)


def _sequence_fps(path: Path) -> float | None:
    """What a ``seqinfo.ini`` says; None where there is none."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
        fps = parser.getfloat("Sequence", "frameRate", fallback=None)
    except (configparser.Error, ValueError) as error:
        raise DataError(f"cannot read {path}", str(error), "correct it, or give --fps") from error
    if fps is not None and not 0 < fps <= 1000:
        raise DataError(f"{path}: frameRate {fps} is out of range", "wanted above 0, at most 1000", "correct it")
    return fps
