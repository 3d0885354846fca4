"""COCO JSON: boxes, polygons, run-length masks, crowds; and two additions of ours, `identity` and image `tags`."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cloverleaf.data.readers.files import Listing, digest, stamps
from cloverleaf.data.records import (
    Fault,
    Header,
    ImageRecord,
    Location,
    ObjectRecord,
    OpenSplit,
    Report,
    Rings,
    RunLength,
    refuse,
)
from cloverleaf.errors import DataError

_PROBE = 50  # images looked up to choose among the possible image folders


@dataclass(frozen=True, slots=True)
class CocoSplit:
    """One COCO JSON file and the folders that may hold its images, best first."""

    split: str
    root: Path
    annotations: Path
    image_folders: tuple[Path, ...]
    names: tuple[str, ...] | None = None  # what a YAML beside it promises; must agree with the file

    @property
    def format(self) -> Literal["coco"]:
        """Name of the format."""
        return "coco"

    @property
    def identity(self) -> str:
        """The file and its image folders."""
        return f"coco:{self.annotations}:{':'.join(map(str, self.image_folders))}:{self.names}"

    def fingerprint(self) -> str:
        """Of the JSON file and the image folders' times."""
        return digest(stamps([self.annotations, *self.image_folders]))

    def open(self, report: Report = refuse) -> OpenSplit:
        """Parse the file (it is in memory while it is read)."""
        content = load_json(self.annotations)
        header = _header(content, self.annotations)
        if self.names is not None and self.names != header.names:
            raise DataError(
                what=f"the names in the YAML and in {self.annotations} differ",
                why=f"the YAML has {list(self.names)}, the JSON {list(header.names)}",
                fix="remove `names` from the YAML or correct one of the two",
            )
        return OpenSplit(header, self._images(content, header, report))

    def _images(self, content: dict[str, Any], header: Header, report: Report) -> Iterator[ImageRecord]:
        images, annotations = content["images"], content["annotations"]
        folder = choose_folder(self.image_folders, [str(image.get("file_name", "")) for image in images[:_PROBE]])
        parser = _Objects(self.annotations, header, report)
        rows_of: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for row in annotations:
            rows_of[row.get("image_id") if isinstance(row, dict) else None].append(row)
        tag_index = {tag: k for k, tag in enumerate(header.tag_ids)}
        seen: set[int] = set()
        for position, image in enumerate(images):
            record = self._image(image, position, folder, tag_index, report)
            if record is None:
                continue
            if record.image_id in seen:
                report(Fault("duplicate-id", f"image id {record.image_id} is used twice", record.location))
                continue
            seen.add(record.image_id)
            size_hw = record.size_hw
            for row in rows_of.pop(record.image_id, ()):
                found = parser.parse(row, size_hw)
                if found is not None:
                    record.objects.append(found)
            yield record
        for image_id, rows in rows_of.items():
            for row in rows:
                location = parser.location(row)
                report(Fault("unknown-image", f"image_id {image_id!r} is not among the images", location, fatal=False))

    def _image(
        self, image: Any, position: int, folder: Path, tag_index: dict[int, int], report: Report
    ) -> ImageRecord | None:
        location = Location(self.annotations, item=f"image at position {position}")
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            report(Fault("broken-image", "an image needs `id` and `file_name`", location))
            return None
        image_id = image.get("id")
        if not isinstance(image_id, int):
            report(Fault("broken-image", f"image id {image_id!r} is not an integer", location))
            return None
        location = Location(self.annotations, item=f"image {image_id}")
        tags = []
        for tag in image.get("tags", ()):
            if tag in tag_index:
                tags.append(tag_index[tag])
            else:
                report(Fault("unknown-tag", f"tag id {tag!r} is not among the tags", location))
        height, width = image.get("height"), image.get("width")
        size_hw = None
        if isinstance(height, int | float) and isinstance(width, int | float) and height > 0 and width > 0:
            size_hw = (int(height), int(width))
        return ImageRecord(folder / image["file_name"], size_hw, image_id, location, tags=tuple(tags))

    def with_line(self, location: Location) -> Location:
        """Find the line of the annotation or image by its id."""
        section, _, number = location.item.partition(" ")
        if location.line is not None or section not in _SECTIONS or not number.lstrip("-").isdigit():
            return location
        line = _lines(location.file, _SECTIONS[section]).get(int(number))
        return Location(location.file, line, location.item)


_SECTIONS = {"annotation": b'"annotations"', "image": b'"images"'}


@lru_cache(maxsize=2)
def _lines(file: Path, section: bytes) -> dict[int, int]:
    """Line of each `"id": N` in one section of a COCO file, from one pass over its text."""
    text = file.read_bytes()
    edges = [found.start() for found in re.finditer(rb'"(?:images|annotations|categories)"\s*:', text)]
    start = text.find(section)
    stop = min((edge for edge in edges if edge > start), default=len(text))
    found = [(int(match[1]), match.start()) for match in re.compile(rb'"id"\s*:\s*(-?\d+)').finditer(text, start, stop)]
    breaks = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == ord("\n"))
    lines = np.searchsorted(breaks, [position for _, position in found]) + 1
    return dict(zip((number for number, _ in found), lines.tolist(), strict=True))


class _Objects:
    """Annotations to records."""

    def __init__(self, file: Path, header: Header, report: Report) -> None:
        self._file, self._header, self._report = file, header, report
        self._label_of = {category: label for label, category in enumerate(header.category_ids)}

    def location(self, row: Any) -> Location:
        """Of one annotation."""
        return Location(self._file, item=f"annotation {row.get('id', '?')}" if isinstance(row, dict) else "annotation")

    def parse(self, row: dict[str, Any], size_hw: tuple[int, int] | None) -> ObjectRecord | None:
        """One annotation; None when it has a fault that leaves nothing to use."""
        location = self.location(row)
        label = self._label_of.get(row.get("category_id"))  # type: ignore[arg-type]
        if label is None:
            known = list(self._header.category_ids)
            shown = f"{known[:10]}{'...' if len(known) > 10 else ''}"
            message = f"category_id {row.get('category_id')!r} is not among the categories {shown}"
            self._report(Fault("unknown-class", message, self._precise(location)))
            return None
        segmentation = self._segmentation(row.get("segmentation"), location, size_hw)
        box = _numbers(row.get("bbox"), 4)
        if box is not None:
            x, y, width, height = box
            box_xyxy = (x, y, x + width, y + height)
        elif row.get("bbox") is None and isinstance(segmentation, tuple):
            points = np.concatenate(segmentation)
            low, high = points.min(0), points.max(0)
            box_xyxy = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        else:
            self._report(Fault("broken-box", f"bbox {row.get('bbox')!r} is not four numbers", self._precise(location)))
            return None
        area, identity, annotation_id = row.get("area"), row.get("identity"), row.get("id")
        return ObjectRecord(
            label=label,
            box_xyxy=box_xyxy,
            location=location,
            segmentation=segmentation,
            area=float(area) if isinstance(area, int | float) and math.isfinite(area) else None,
            crowd=bool(row.get("iscrowd", 0)),
            difficult=bool(row.get("difficult", 0)),
            truncated=bool(row.get("truncated", 0)),
            identity=identity if isinstance(identity, int) else None,
            annotation_id=annotation_id if isinstance(annotation_id, int) else None,
        )

    def _precise(self, location: Location) -> Location:
        return CocoSplit("", self._file.parent, self._file, ()).with_line(location)

    def _segmentation(
        self, value: Any, location: Location, size_hw: tuple[int, int] | None
    ) -> Rings | RunLength | None:
        if not value:
            return None
        try:
            if isinstance(value, dict):
                return _run_length(value, size_hw)
            rings = tuple(np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in value)
            if any(len(ring) < 3 or not np.isfinite(ring).all() for ring in rings):
                raise ValueError("a polygon needs at least three points with finite coordinates")
        except (ValueError, TypeError, KeyError) as error:
            message = f"segmentation cannot be used: {error}"
            self._report(Fault("broken-segmentation", message, location, severity="warning", fatal=False))
            return None
        return rings


def _run_length(value: dict[str, Any], size_hw: tuple[int, int] | None) -> RunLength:
    height, width = (int(side) for side in value["size"])
    if size_hw is not None and (height, width) != size_hw:
        raise ValueError(f"the mask is {width}x{height}, the image {size_hw[1]}x{size_hw[0]}")
    counts = value["counts"]
    if isinstance(counts, str | bytes):
        return RunLength((height, width), counts.encode() if isinstance(counts, str) else counts)
    if sum(counts) != height * width:
        raise ValueError(f"the run lengths add up to {sum(counts)}, not to {height} x {width}")
    from faster_coco_eval.core import mask

    return RunLength((height, width), mask.frPyObjects(value, height, width)["counts"])


def _numbers(value: Any, length: int) -> list[float] | None:
    """``value`` as so many floats (NaN allowed), or None."""
    if not isinstance(value, list) or len(value) != length:
        return None
    if not all(isinstance(item, int | float) for item in value):
        return None
    return [float(item) for item in value]


def load_json(path: Path) -> dict[str, Any]:
    """A COCO dictionary with lists under images, annotations and categories; raises `DataError` with the line."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(what=f"no file {path}", fix="check the path") from error
    except json.JSONDecodeError as error:
        raise DataError(
            what=f"{path}:{error.lineno}: not valid JSON",
            why=f"{error.msg} at column {error.colno}",
            fix="the file may be cut off: write or copy it again",
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(what=f"{path} is not text", why=str(error), fix="pass a COCO JSON file") from error
    if not isinstance(content, dict):
        raise DataError(
            what=f"{path} is not a COCO dataset",
            why=f"its top level is a {type(content).__name__}, not an object",
            fix="pass the annotations; a list is how detection results are stored",
        )
    for key in ("images", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(
                what=f"{path} is not a COCO dataset",
                why=f"it has no list `{key}` (found {', '.join(sorted(content)[:8]) or 'nothing'})",
                fix="pass a file with images, annotations and categories",
            )
    if not isinstance(content.get("annotations", []), list):
        raise DataError(what=f"{path}: `annotations` is not a list", fix="write the file again")
    content.setdefault("annotations", [])
    return content


def _header(content: dict[str, Any], path: Path) -> Header:
    ids, names = _named(content["categories"], "category", path)
    if not ids:
        raise DataError(what=f"{path} has no categories", fix="list the classes under `categories`")
    tag_ids, tag_names = _named(content.get("tags", []), "tag", path)
    return Header(names, ids, tag_names, tag_ids)


def _named(rows: Any, kind: str, path: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Ids and names sorted by id."""
    table: dict[int, str] = {}
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict) or not isinstance(row.get("id"), int) or "name" not in row:
            raise DataError(what=f"{path}: a {kind} is broken", why=f"found {row!r}", fix="give it an id and a name")
        if row["id"] in table:
            raise DataError(what=f"{path}: {kind} id {row['id']} is used twice", fix="give every one its own id")
        table[row["id"]] = str(row["name"])
    ids = tuple(sorted(table))
    return ids, tuple(table[number] for number in ids)


def choose_folder(folders: tuple[Path, ...], names: list[str]) -> Path:
    """The folder that holds most of the named files; the first of equals."""
    listing = Listing()
    return max(folders, key=lambda folder: sum((folder / name) in listing for name in names))
