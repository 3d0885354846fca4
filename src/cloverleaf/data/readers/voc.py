"""Pascal VOC XML: one file per image, boxes as corners in pixels; and additions of ours that other formats carry."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from xml.sax.handler import ContentHandler

import numpy as np

from cloverleaf.data.readers.files import Listing, digest, folder_stamps, stamps
from cloverleaf.data.records import (
    IMAGE_SUFFIXES,
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

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


@dataclass(frozen=True, slots=True)
class VocSplit:
    """One split: XML files in a folder, all of them or those that a list names.

    Attributes:
        folders: of XML files; the classes are gathered from all of them, so that all splits agree.
        own: the folder of this split's files.
        listing: text file with one stem a line; None means every file of `own`.
        image_folders: where images may be, best first.
        names_file: text file with a class a line, in label order; None means the names found, sorted.
    """

    split: str
    root: Path
    folders: tuple[Path, ...]
    own: Path
    listing: Path | None
    image_folders: tuple[Path, ...]
    names_file: Path | None = None

    @property
    def format(self) -> Literal["voc"]:
        """Name of the format."""
        return "voc"

    @property
    def identity(self) -> str:
        """The folders and the list."""
        return f"voc:{self.own}:{self.listing}:{self.names_file}:{':'.join(map(str, self.image_folders))}"

    def fingerprint(self) -> str:
        """Of every XML file, the lists and the times of the image folders."""
        parts = list(stamps([path for path in (self.listing, self.names_file) if path is not None]))
        for folder in self.folders:
            parts.extend(folder_stamps(folder, ".xml"))
        return digest([*parts, *stamps(self.image_folders)])

    def files(self) -> list[Path]:
        """XML files of the split, in order."""
        if self.listing is None:
            return sorted(self.own.glob("*.xml"))
        lines = self.listing.read_text(encoding="utf-8-sig").splitlines()
        stems = [line.split()[0] for line in lines if line.strip()]
        return [self.own / f"{stem.removesuffix('.xml')}.xml" for stem in stems]

    def open(self, report: Report = refuse) -> OpenSplit:
        """Find the classes, then read one file after the other."""
        files = self.files()
        if not files:
            raise DataError(f"split {self.split!r} of {self.root} is empty", f"no XML files in {self.own}", "check it")
        names, tags = self._names(files)
        ids = tuple(range(1, len(names) + 1))
        header = Header(names, ids, tags, tuple(range(1, len(tags) + 1)))
        return OpenSplit(header, self._records(files, header, report))

    def _names(self, files: list[Path]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Classes and tags, from the list file or from the data."""
        found: set[str] = set()
        tags: set[str] = set()
        everywhere = {path: None for folder in self.folders for path in sorted(folder.glob("*.xml"))}
        for path in everywhere | dict.fromkeys(path for path in files if path.is_file()):
            tree = _parse(path, lambda fault: None)
            if tree is not None:
                found.update(_text(item, "name") for item in tree.iter("object"))
                tags.update((item.text or "").strip() for item in tree.findall("tag"))
        found.discard("")
        if self.names_file is not None:
            lines = self.names_file.read_text(encoding="utf-8-sig").splitlines()
            return tuple(line.strip() for line in lines if line.strip()), tuple(sorted(tags))
        if not found:
            raise DataError(
                what=f"{self.root} has no classes",
                why="no XML file has an object with a name",
                fix="check the folder, or write the names to classes.txt beside the XML folder",
            )
        return tuple(sorted(found)), tuple(sorted(tags))

    def _records(self, files: list[Path], header: Header, report: Report) -> Iterator[ImageRecord]:
        listing = Listing()
        label_of = {name: label for label, name in enumerate(header.names)}
        tag_of = {name: position for position, name in enumerate(header.tag_names)}
        for number, file in enumerate(files, start=1):
            if file not in listing:
                report(Fault("missing-file", "listed in the split, but there is no such file", Location(file)))
                continue
            tree = _parse(file, report)
            if tree is None:
                continue
            path = self._image_path(tree, file, listing)
            image_id = _text(tree, "image_id")
            record = ImageRecord(path, _size(tree), int(image_id) if image_id.isdigit() else number, Location(file))
            record.tags = tuple(tag_of[(item.text or "").strip()] for item in tree.findall("tag"))
            for ordinal, item in enumerate(tree.iter("object"), start=1):
                location = Location(file, item=f"object {ordinal}")
                found = self._object(item, label_of, location, record.size_hw, report)
                if found is not None:
                    record.objects.append(found)
            yield record

    def _image_path(self, tree: Element, file: Path, listing: Listing) -> Path:
        """The named file in an image folder, or an image with the stem of the XML file."""
        named = Path(_text(tree, "filename").replace("\\", "/")).name
        for folder in self.image_folders:
            if named and folder / named in listing:
                return folder / named
        for folder in self.image_folders:
            for suffix in sorted(IMAGE_SUFFIXES):
                for name in (file.stem + suffix, file.stem + suffix.upper()):
                    if folder / name in listing:
                        return folder / name
        return self.image_folders[0] / (named or f"{file.stem}.jpg")

    def _object(
        self,
        item: Element,
        label_of: dict[str, int],
        location: Location,
        size_hw: tuple[int, int] | None,
        report: Report,
    ) -> ObjectRecord | None:
        name = _text(item, "name")
        if name not in label_of:
            known = ", ".join(list(label_of)[:12])
            report(Fault("unknown-class", f"name {name!r} is not one of {known}", self.with_line(location)))
            return None
        box = item.find("bndbox")
        try:
            if box is None:
                raise ValueError("there is no bndbox")
            x1, y1, x2, y2 = (float(_text(box, key) or "missing") for key in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError as error:
            report(Fault("broken-box", f"the box cannot be read: {error}", self.with_line(location)))
            return None
        area, identity, annotation = (_text(item, key) for key in ("area", "identity", "annotation_id"))
        return ObjectRecord(
            label=label_of[name],
            box_xyxy=(x1, y1, x2, y2),
            location=location,
            segmentation=_segmentation(item, size_hw),
            area=float(area) if _is_number(area) else None,
            crowd=_text(item, "crowd") == "1",
            difficult=_text(item, "difficult") == "1",
            truncated=_text(item, "truncated") == "1",
            identity=int(identity) if identity.isdigit() else None,
            annotation_id=int(annotation) if annotation.isdigit() else None,
        )

    def with_line(self, location: Location) -> Location:
        """Find the line of the n-th object with the parser's locator."""
        section, _, number = location.item.partition(" ")
        if location.line is not None or section != "object" or not number.isdigit():
            return location
        from defusedxml import sax

        handler = _ObjectLines()
        sax.parse(str(location.file), handler)
        lines = handler.lines
        return Location(location.file, lines[int(number) - 1], location.item) if int(number) <= len(lines) else location


class _ObjectLines(ContentHandler):
    """Lines on which an `object` element starts."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[int] = []

    def setDocumentLocator(self, locator: object) -> None:
        self._where = locator

    def startElement(self, name: str, attrs: object) -> None:
        if name == "object":
            self.lines.append(self._where.getLineNumber())  # type: ignore[attr-defined]


def _parse(file: Path, report: Report) -> Element | None:
    from defusedxml import DefusedXmlException, ElementTree

    try:
        return ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        line = error.position[0] if hasattr(error, "position") else None
        report(Fault("broken-file", f"not valid XML: {error}", Location(file, line)))
    except DefusedXmlException as error:
        report(Fault("broken-file", f"refused, it has entities or other active content: {error}", Location(file)))
    except OSError as error:
        report(Fault("broken-file", f"cannot be read: {error}", Location(file)))
    return None


def _text(item: Element, key: str) -> str:
    return (item.findtext(key) or "").strip()


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _size(tree: Element) -> tuple[int, int] | None:
    size = tree.find("size")
    if size is None:
        return None
    width, height = _text(size, "width"), _text(size, "height")
    if not (_is_number(width) and _is_number(height)) or float(width) <= 0 or float(height) <= 0:
        return None
    return int(float(height)), int(float(width))


def _segmentation(item: Element, size_hw: tuple[int, int] | None) -> Rings | RunLength | None:
    """`<rle>` of ours, or `<polygon>` with `<x1> <y1> <x2> ...` as labelling tools write it."""
    mask = item.find("rle")
    if mask is not None and size_hw is not None and mask.text:
        return RunLength(size_hw, mask.text.strip().encode())
    rings = []
    for polygon in item.findall("polygon"):
        values = {child.tag: (child.text or "").strip() for child in polygon}
        count = sum(key.startswith("x") for key in values)
        points = [(values.get(f"x{k}", ""), values.get(f"y{k}", "")) for k in range(1, count + 1)]
        if count >= 3 and all(_is_number(x) and _is_number(y) for x, y in points):
            rings.append(np.array([(float(x), float(y)) for x, y in points]))
    return tuple(rings) or None
