"""What writers share: file names of images, their sizes, and a tally of what a format could not carry."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cloverleaf.data.image_io import image_size
from cloverleaf.data.records import Header, ImageRecord, ObjectRecord
from cloverleaf.errors import DataError


@dataclass(slots=True)
class Tally:
    """What was written, and what the format could not carry or the dataset did not have."""

    images: Counter[str] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)


class Writer(Protocol):
    """Writes the splits of a dataset one after the other."""

    def image_folder(self, split: str) -> Path:
        """Where the images of a split go."""
        ...

    def add(self, split: str, record: ImageRecord, name: str, size_hw: tuple[int, int]) -> None:
        """Write one image's labels; ``name`` is its file name in the image folder."""
        ...

    def finish(self) -> None:
        """Write what comes at the end."""
        ...


class ImageNames:
    """A file name for each image whose stem is unique in the whole output."""

    def __init__(self) -> None:
        self._stem_of: dict[Path, str] = {}
        self._taken: set[str] = set()

    def __call__(self, path: Path) -> str:
        stem = self._stem_of.get(path)
        if stem is None:
            stem, number = path.stem, 1
            while stem.lower() in self._taken:
                number += 1
                stem = f"{path.parent.name}_{path.stem}" if number == 2 else f"{path.stem}_{number}"
            self._taken.add(stem.lower())
            self._stem_of[path] = stem
        return stem + path.suffix


def place_image(source: Path, target: Path, *, copy: bool, tally: Tally) -> None:
    """Copy the file or link to it; a missing one is counted."""
    if not source.is_file():
        tally.lost["image files that do not exist (their labels are written)"] += 1
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    if copy:
        shutil.copyfile(source, target)
    else:
        target.symlink_to(source.resolve())


def true_size(record: ImageRecord) -> tuple[int, int]:
    """(H, W) of the file, so that pixels stay what they are; of the labels where there is no file."""
    if record.path.is_file():
        return image_size(record.path)
    if record.size_hw is None:
        raise DataError(
            what=f"the size of {record.path} is not known",
            why="the file does not exist and the labels do not say",
            fix="add the image or remove its labels",
        )
    return record.size_hw


def is_finite(found: ObjectRecord) -> bool:
    """Whether all four coordinates are numbers."""
    return all(math.isfinite(value) for value in found.box_xyxy)


def box_area(found: ObjectRecord) -> float:
    """Width times height."""
    x1, y1, x2, y2 = found.box_xyxy
    return (x2 - x1) * (y2 - y1)


def require_same_classes(headers: dict[str, Header]) -> Header:
    """The classes that all splits have; raises `DataError` when they differ."""
    splits = list(headers)
    first = headers[splits[0]]
    for split in splits[1:]:
        if (headers[split].names, headers[split].category_ids) != (first.names, first.category_ids):
            raise DataError(
                what=f"splits {splits[0]!r} and {split!r} have different classes",
                why=f"{list(first.names)[:8]} with ids {list(first.category_ids)[:8]} against "
                f"{list(headers[split].names)[:8]} with ids {list(headers[split].category_ids)[:8]}",
                fix="make them agree, or convert one split at a time",
            )
    return first
