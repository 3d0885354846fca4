"""Pascal VOC XML; what the format does not know goes into elements of its own, which other readers pass over."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from cloverleaf.data.records import Header, ImageRecord, ObjectRecord, RunLength
from cloverleaf.data.writers.layout import Tally, box_area


class VocWriter:
    """`Annotations/`, `JPEGImages/`, `ImageSets/Main/<split>.txt` and `classes.txt`."""

    def __init__(self, output: Path, header: Header, tally: Tally) -> None:
        self._output, self._header, self._tally = output, header, tally
        self._stems: dict[str, list[str]] = defaultdict(list)
        (output / "Annotations").mkdir(parents=True, exist_ok=True)
        if header.category_ids != tuple(range(1, len(header.names) + 1)):
            tally.lost["category ids (numbered from 1 in the order of classes.txt)"] = len(header.names)

    def image_folder(self, split: str) -> Path:
        """One folder for all splits."""
        return self._output / "JPEGImages"

    def add(self, split: str, record: ImageRecord, name: str, size_hw: tuple[int, int]) -> None:
        """Write the XML file of an image."""
        stem = Path(name).stem
        self._stems[split].append(stem)
        root = ElementTree.Element("annotation")
        _put(root, "folder", "JPEGImages")
        _put(root, "filename", name)
        _put(root, "image_id", record.image_id)
        size = ElementTree.SubElement(root, "size")
        for key, value in (("width", size_hw[1]), ("height", size_hw[0]), ("depth", 3)):
            _put(size, key, value)
        _put(root, "segmented", int(any(found.segmentation is not None for found in record.objects)))
        for tag in record.tags:
            _put(root, "tag", self._header.tag_names[tag])
        for found in record.objects:
            self._object(root, found, size_hw)
        ElementTree.indent(root, "\t")
        text = ElementTree.tostring(root, encoding="unicode")
        (self._output / "Annotations" / f"{stem}.xml").write_text(text + "\n", encoding="utf-8")

    def _object(self, root: ElementTree.Element, found: ObjectRecord, size_hw: tuple[int, int]) -> None:
        item = ElementTree.SubElement(root, "object")
        _put(item, "name", self._header.names[found.label])
        _put(item, "pose", "Unspecified")
        _put(item, "truncated", int(found.truncated))
        _put(item, "difficult", int(found.difficult))
        box = ElementTree.SubElement(item, "bndbox")
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), found.box_xyxy, strict=True):
            _put(box, key, value)
        if found.crowd:
            _put(item, "crowd", 1)
        if found.area is not None and found.area != box_area(found):
            _put(item, "area", found.area)
        if found.identity is not None:
            _put(item, "identity", found.identity)
        if found.annotation_id is not None:
            _put(item, "annotation_id", found.annotation_id)
        if isinstance(found.segmentation, RunLength):
            if found.segmentation.size_hw == size_hw:
                _put(item, "rle", found.segmentation.counts.decode())
            else:
                self._tally.lost["masks of another size than the image"] += 1
        elif found.segmentation is not None:
            for ring in found.segmentation:
                polygon = ElementTree.SubElement(item, "polygon")
                for number, (x, y) in enumerate(ring.tolist(), start=1):
                    _put(polygon, f"x{number}", x)
                    _put(polygon, f"y{number}", y)

    def finish(self) -> None:
        """Write the lists of images and of classes."""
        folder = self._output / "ImageSets" / "Main"
        folder.mkdir(parents=True, exist_ok=True)
        for split, stems in self._stems.items():
            (folder / f"{split}.txt").write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
        names = "".join(f"{name}\n" for name in self._header.names)
        (self._output / "classes.txt").write_text(names, encoding="utf-8")


def _put(parent: ElementTree.Element, key: str, value: object) -> None:
    """A child with text; whole numbers without a decimal point."""
    whole = isinstance(value, float) and value.is_integer()
    ElementTree.SubElement(parent, key).text = str(int(value)) if whole else str(value)  # type: ignore[call-overload]
