"""YOLO text labels: one file per image, a row per object, `class cx cy w h` or `class x1 y1 x2 y2 ...` as fractions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cloverleaf.data.image_io import image_size
from cloverleaf.data.readers.files import Listing, digest, folder_stamps, image_files, stamps
from cloverleaf.data.records import (
    Fault,
    Header,
    ImageRecord,
    Location,
    ObjectRecord,
    OpenSplit,
    Report,
    refuse,
)
from cloverleaf.errors import DataError, ImageError


@dataclass(frozen=True, slots=True)
class YoloSplit:
    """One split: folders of images, or text files that list images.

    Attributes:
        images: image folders and list files.
        names: of the classes.
        category_ids: COCO ids of the classes; 1 to K unless the YAML says otherwise.
        base: what relative lines of a list file refer to.
    """

    split: str
    root: Path
    images: tuple[Path, ...]
    names: tuple[str, ...]
    category_ids: tuple[int, ...]
    base: Path

    @property
    def format(self) -> Literal["yolo"]:
        """Name of the format."""
        return "yolo"

    @property
    def identity(self) -> str:
        """The folders and the classes."""
        return f"yolo:{':'.join(map(str, self.images))}:{self.names}:{self.category_ids}"

    def fingerprint(self) -> str:
        """Of the label files, the list files and the times of the image folders."""
        folders = [path for path in self.images if path.is_dir()]
        lists = [path for path in self.images if path.is_file()]
        listed = {path.parent: None for file in lists for path in self._listed(file)}
        parts = [*stamps([*lists, *listed]), *(part for folder in folders for part in folder_stamps(folder))]
        for folder in dict.fromkeys(labels_folder(folder) for folder in [*folders, *listed]):
            if folder.is_dir():
                parts.extend(folder_stamps(folder, ".txt"))
        return digest(parts)

    def _listed(self, file: Path) -> list[Path]:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"cannot read the image list {file}", str(error), "write one image path per line"
            ) from error
        paths = [Path(line.strip()) for line in lines if line.strip()]
        return [path if path.is_absolute() else self._resolve(path, file) for path in paths]

    def _resolve(self, path: Path, file: Path) -> Path:
        return file.parent / path if (file.parent / path).exists() else self.base / path

    def image_paths(self) -> list[Path]:
        """Every image of the split, in a fixed order."""
        paths: list[Path] = []
        for entry in self.images:
            paths.extend(image_files(entry) if entry.is_dir() else self._listed(entry))
        return list(dict.fromkeys(paths))

    def open(self, report: Report = refuse) -> OpenSplit:
        """List the images, then read one label file after the other."""
        paths = self.image_paths()
        if not paths:
            raise DataError(
                what=f"split {self.split!r} of {self.root} has no images",
                why=f"none found in {', '.join(map(str, self.images))}",
                fix="check the paths in the YAML",
            )
        listing = Listing()
        if not any(label_file(path, listing) in listing for path in paths):
            raise DataError(
                what=f"split {self.split!r} of {self.root} has no label files",
                why=f"looked for .txt files in {labels_folder(paths[0].parent)} and beside the images",
                fix="put labels/ beside images/ with the same file names, ending in .txt",
            )
        return OpenSplit(Header(self.names, self.category_ids), self._records(paths, listing, report))

    def _records(self, paths: list[Path], listing: Listing, report: Report) -> Iterator[ImageRecord]:
        for number, path in enumerate(paths, start=1):
            labels = label_file(path, listing)
            record = ImageRecord(path, None, number, Location(labels if labels in listing else path))
            if path in listing:
                try:
                    record.size_hw = image_size(path)
                except ImageError as error:
                    record.problem = f"{error.what}: {error.why}"
            if labels in listing:
                record.objects = list(self._objects(labels, record.size_hw or (1, 1), report))
            yield record

    def _objects(self, file: Path, size_hw: tuple[int, int], report: Report) -> Iterator[ObjectRecord]:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            report(Fault("broken-file", f"cannot be read as text: {error}", Location(file)))
            return
        for line, row in enumerate(text.splitlines(), start=1):
            if row and not row.isspace():
                found = self._object(row.split(), Location(file, line), size_hw, report)
                if found is not None:
                    yield found

    def _object(
        self, fields: list[str], location: Location, size_hw: tuple[int, int], report: Report
    ) -> ObjectRecord | None:
        try:
            values = [float(field) for field in fields]
        except ValueError:
            report(Fault("broken-row", f"not all numbers: {' '.join(fields)[:60]!r}", location))
            return None
        if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
            message = f"{len(values)} numbers; a box has 5 (class cx cy w h), a polygon 7, 9, 11, ..."
            report(Fault("broken-row", message, location))
            return None
        label = int(values[0]) if values[0] == values[0] and abs(values[0]) < 1e9 else -1
        if label != values[0] or not 0 <= label < len(self.names):
            message = f"class {fields[0]} is not one of 0 to {len(self.names) - 1} ({len(self.names)} names)"
            report(Fault("unknown-class", message, location))
            return None
        height, width = size_hw
        if len(values) == 5:
            cx, cy, w, h = values[1] * width, values[2] * height, values[3] * width, values[4] * height
            return ObjectRecord(label, (cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), location)
        ring = np.array(values[1:]).reshape(-1, 2) * (width, height)
        (x1, y1), (x2, y2) = ring.min(0).tolist(), ring.max(0).tolist()
        return ObjectRecord(label, (x1, y1, x2, y2), location, (ring,) if np.isfinite(ring).all() else None)

    def with_line(self, location: Location) -> Location:
        """Rows carry their line already."""
        return location


def labels_folder(images: Path) -> Path:
    """Where the labels of an image folder are by convention: its last part `images` becomes `labels`."""
    parts = list(images.parts)
    for position in range(len(parts) - 1, 0, -1):
        if parts[position].lower() == "images":
            return Path(*parts[:position], "labels", *parts[position + 1 :])
    return images


def label_file(image: Path, listing: Listing) -> Path:
    """The label file of an image: in the labels folder, or beside the image when only that one exists."""
    name = f"{image.stem}.txt"
    conventional = labels_folder(image.parent) / name
    beside = image.parent / name
    return beside if conventional not in listing and beside in listing else conventional
