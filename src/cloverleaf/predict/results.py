"""The folder that a prediction run leaves: annotated pictures, crops, JSON."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cloverleaf import atomic
from cloverleaf.drawing.sheet import save_picture
from cloverleaf.errors import DataError
from cloverleaf.predict.draw import draw_detections
from cloverleaf.predict.sources import Picture, Unreadable
from cloverleaf.structures.detections import Detections

_KEPT_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def numbered(base: Path, suffix: str = "") -> Iterator[Path]:
    """``base``, ``base-2``, ``base-3``, ... without end; ``suffix`` comes behind the number."""
    yield base.with_name(f"{base.name}{suffix}")
    for number in itertools.count(2):
        yield base.with_name(f"{base.name}-{number}{suffix}")


def new_folder(base: Path) -> Path:
    """Make and return ``base``, or the first free one of ``base-2``, ``base-3``, ..."""
    for folder in numbered(base):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("numbers do not end")


def make_folder(folder: Path) -> Path:
    """Make a folder that may exist.

    Raises:
        DataError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}", error.strerror or str(error), "name another one") from error
    return folder


class ResultFolder:
    """Names and writes the files of one run; a file that was read is never overwritten.

    Args:
        folder: an existing folder.
        inputs: files that were read.
    """

    def __init__(self, folder: Path, inputs: Iterable[Path] = ()) -> None:
        self.folder = folder
        self._taken = {path.resolve() for path in inputs}
        self._images: list[dict[str, Any]] = []
        self._rows: list[dict[str, Any]] = []
        self._categories: list[dict[str, Any]] = []

    def reserve(self, name: str, suffix: str, folder: Path | None = None) -> Path:
        """A path in the folder that neither an input nor an earlier output of this run has."""
        path = next(p for p in numbered((folder or self.folder) / name, suffix) if p.resolve() not in self._taken)
        self._taken.add(path.resolve())
        return path

    def save_picture(self, picture: Picture, detections: Detections) -> Path:
        """Write the annotated picture in the format of its source (JPEG where that cannot be written)."""
        source = Path(picture.source or "image.jpg")
        suffix = source.suffix.lower() if source.suffix.lower() in _KEPT_SUFFIXES else ".jpg"
        path = self.reserve(source.stem, suffix)
        save_picture(path, draw_detections(picture.pixels, detections))
        return path

    def save_crops(self, picture: Picture, detections: Detections) -> int:
        """Write every detection as a picture under ``crops/CLASS/``; returns how many."""
        height, width = picture.pixels.shape[:2]
        scale = np.array([width / detections.image_hw[1], height / detections.image_hw[0]] * 2)
        corners = detections.xyxy * scale
        low = np.floor(corners[:, :2]).astype(int)
        high = np.maximum(np.ceil(corners[:, 2:]).astype(int), low + 1)
        stem = Path(picture.source or "image").stem
        for (left, top), (right, bottom), name in zip(low, high, detections.names, strict=True):
            folder = self.folder / "crops" / (re.sub(r"[^\w. -]+", "_", name).strip(". ") or "_")
            folder.mkdir(parents=True, exist_ok=True)
            save_picture(self.reserve(stem, ".jpg", folder), picture.pixels[top:bottom, left:right])
        return len(detections)

    def record(self, detections: Detections) -> None:
        """Keep the detections of an image for `write_json`."""
        image_id = len(self._images) + 1
        height, width = detections.image_hw
        self._images.append({"id": image_id, "file_name": detections.source, "height": height, "width": width})
        self._rows += detections.to_coco(image_id)
        self._categories = categories_of(detections)

    def write_json(self, unreadable: Sequence[Unreadable] = ()) -> Path:
        """Write ``predictions.json``: images, categories, detections as COCO results rows, and what was not read."""
        path = self.reserve("predictions", ".json")
        content = {
            "images": self._images,
            "categories": self._categories,
            "detections": self._rows,
            "unreadable": [{"source": item.source, "reason": item.reason} for item in unreadable],
        }
        atomic.write_json(path, content)
        return path


def categories_of(detections: Detections) -> list[dict[str, Any]]:
    """COCO categories of the model behind ``detections``."""
    ids = detections.category_ids or range(len(detections.class_names))
    return [{"id": i, "name": name} for i, name in zip(ids, detections.class_names, strict=True)]
