"""Tracks in the text format of MOTChallenge: a line per box."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.errors import DataError

UNKNOWN = -1  # class or visibility that a file does not give
_FEWEST, _MOST = 6, 10
_STEP = 0.01  # pixels
_LAST_FRAME, _LARGEST = 10**7, 2**53


@dataclass(frozen=True, slots=True)
class MotTable:
    """Boxes of tracks, sorted by frame and then by track.

    Attributes:
        frames: ``(n,)`` int64 from 1.
        ids: ``(n,)`` int64 of the tracks; no two boxes of a frame have the same.
        xywh: ``(n, 4)`` float64: left, top, width, height in pixels; the corner of the image is 0 (docs/fidelity.md).
        scores: ``(n,)`` float64; in ground truth 0 marks a box that is not counted.
        classes: ``(n,)`` int64 from 1, `UNKNOWN` where the file does not say.
        visibility: ``(n,)`` float64 share of the object that is seen, `UNKNOWN` where the file does not say.
    """

    frames: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    xywh: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    visibility: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def xyxy(self) -> npt.NDArray[np.float64]:
        """``(n, 4)`` left, top, right, bottom."""
        return np.concatenate([self.xywh[:, :2], self.xywh[:, :2] + self.xywh[:, 2:]], axis=1)

    @classmethod
    def from_rows(cls, rows: npt.ArrayLike) -> MotTable:
        """From ``(n, 9)`` numbers in the order of the file."""
        table = np.asarray(rows, np.float64).reshape(-1, 9)
        table = table[np.lexsort((table[:, 1], table[:, 0]))]
        whole = table.astype(np.int64)
        return cls(whole[:, 0], whole[:, 1], table[:, 2:6], table[:, 6], whole[:, 7], table[:, 8])

    def lines(self) -> list[str]:
        """Lines of the file, without their ends."""
        columns = (self.frames, self.ids, self.xywh, self.scores, self.classes, self.visibility)
        return [mot_line(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def mot_line(
    frame: int, identity: int, xywh: Iterable[float], score: float, label: int = UNKNOWN, visibility: float = UNKNOWN
) -> str:
    """One line: frame, id, left, top, width, height (hundredths of a pixel, sides at least one), score, class,
    visibility."""
    left, top, width, height = xywh
    box = [f"{value:.2f}".rstrip("0").rstrip(".") for value in (left, top, max(width, _STEP), max(height, _STEP))]
    return ",".join([str(frame), str(identity), *box, f"{score:.5g}", str(label), f"{visibility:.4g}"])


def read_mot(path: Path) -> MotTable:
    """Read results or ground truth with six to ten columns; empty lines are passed over, and an empty file is no boxes.

    Of results with ten columns (MOTChallenge's x, y, z behind the score) only the first seven are read.

    Raises:
        DataError: missing, not text, or a line is wrong; the message names it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}", str(error), "name a text file in MOT format") from error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            rows.append(_parse(line, f"{path}, line {number}"))
    table = MotTable.from_rows(rows)
    twice = (np.diff(table.frames) == 0) & (np.diff(table.ids) == 0)
    if twice.any():
        k = int(twice.argmax())
        raise DataError(
            f"{path}: track {table.ids[k]} has two boxes in frame {table.frames[k]}",
            "a track is in one place at a time",
            "remove one of them",
        )
    return table


def _parse(line: str, where: str) -> list[float]:
    """Nine numbers of a line."""
    parts = line.split(",")
    wanted = "frame, id, left, top, width, height[, score[, class[, visibility]]]"
    if not _FEWEST <= len(parts) <= _MOST:
        raise DataError(f"{where} has {len(parts)} columns", f"wanted {wanted}", "separate the columns by commas")
    try:
        numbers = [float(part) for part in parts]
    except ValueError as error:
        raise DataError(f"{where} is no row of numbers", str(error), f"wanted {wanted}") from error
    further: list[Any] = [1.0, UNKNOWN, UNKNOWN]
    given = numbers[6:7] if len(numbers) == _MOST else numbers[6:]
    row = [*numbers[:6], *given, *further[len(given) :]]
    whole = all(np.isfinite(row)) and max(map(abs, row)) < _LARGEST and not any(row[k] % 1 for k in (0, 1, 7))
    if not whole or not 1 <= row[0] <= _LAST_FRAME or min(row[4:6]) <= 0:
        raise DataError(
            f"{where} is out of range: {line.strip()[:80]}",
            f"frames are whole numbers from 1 to {_LAST_FRAME}, ids and classes whole numbers, sizes above 0",
            "correct the line",
        )
    return row
