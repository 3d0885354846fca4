"""What every reader yields, whatever the format: images with their objects, each with the place it was read from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from cloverleaf.errors import DataError

Severity = Literal["error", "warning", "note"]
Rings = tuple[npt.NDArray[np.float64], ...]

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".jp2"}
)


@dataclass(frozen=True, slots=True)
class Location:
    """Where something was read: a file, its line where lines mean something, and the item in it."""

    file: Path
    line: int | None = None
    item: str = ""

    def __str__(self) -> str:
        text = str(self.file) if self.line is None else f"{self.file}:{self.line}"
        return f"{text} ({self.item})" if self.item else text


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong in an annotation file.

    Attributes:
        code: short stable name, e.g. ``unknown-class``.
        message: what was expected and found.
        location: where.
        severity: how bad it is for the linter.
        fatal: a dataset with this fault is refused for training, because the labels would not mean what they say.
        fix: what to do about it.
    """

    code: str
    message: str
    location: Location
    severity: Severity = "error"
    fatal: bool = True
    fix: str = ""


Report = Callable[[Fault], None]


def refuse(fault: Fault) -> None:
    """The strict handler: a fatal fault ends the reading, any other is left to the caller's own checks."""
    if fault.fatal:
        raise DataError(
            what=f"{fault.location}: {fault.message}",
            fix=fault.fix or "correct the annotation; `cloverleaf data check` lists every fault of the dataset",
        )


@dataclass(frozen=True, slots=True)
class RunLength:
    """A COCO run-length mask: ``counts`` in the compressed form, ``size_hw`` of the mask."""

    size_hw: tuple[int, int]
    counts: bytes


@dataclass(slots=True)
class ObjectRecord:
    """One labelled object.

    Attributes:
        label: index into the names.
        box_xyxy: pixels of the image, as given by the file (not clipped, may be invalid).
        segmentation: rings ``(k, 2)`` in pixels, a run-length mask, or None.
        area: as given by the file; None means the box's area.
        identity: which individual this is, None when unknown.
        annotation_id: id in the file, where the format has one.
    """

    label: int
    box_xyxy: tuple[float, float, float, float]
    location: Location
    segmentation: Rings | RunLength | None = None
    area: float | None = None
    crowd: bool = False
    difficult: bool = False
    truncated: bool = False
    identity: int | None = None
    annotation_id: int | None = None


@dataclass(slots=True)
class ImageRecord:
    """One image with its objects.

    Attributes:
        path: of the image file, whether it exists or not.
        size_hw: as the annotations give it, or read from the file's header by a reader that needs it; None if unknown.
        objects: in the order of the file.
        tags: indices into the tag names.
        problem: why the image itself could not be looked at, empty when it could or need not be.
    """

    path: Path
    size_hw: tuple[int, int] | None
    image_id: int
    location: Location
    objects: list[ObjectRecord] = field(default_factory=list)
    tags: tuple[int, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Header:
    """The classes of a dataset: names in label order with their COCO ids, and the names of the image-level tags."""

    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    tag_names: tuple[str, ...] = ()
    tag_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenSplit:
    """A split being read: its classes, then its images one after the other."""

    header: Header
    images: Iterator[ImageRecord]


class SplitReader(Protocol):
    """One split of a dataset in one format."""

    @property
    def format(self) -> Literal["coco", "yolo", "voc", "class-folders"]: ...

    @property
    def split(self) -> str: ...

    @property
    def root(self) -> Path:
        """The dataset's folder; its index cache goes there."""
        ...

    @property
    def identity(self) -> str:
        """Tells this split from any other on the machine."""
        ...

    def open(self, report: Report = refuse) -> OpenSplit:
        """Start reading; faults go to ``report``, which may raise."""
        ...

    def fingerprint(self) -> str:
        """Changes whenever a file that the split is read from changes."""
        ...

    def with_line(self, location: Location) -> Location:
        """Add the line to a location that has only an item; costs a pass over the file."""
        ...


class SplitsMissing(DataError):
    """The dataset has no split of that name."""
