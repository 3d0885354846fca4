"""COCO JSON: one file per split; carries everything that a record has."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from cloverleaf.data.records import Header, ImageRecord, ObjectRecord, RunLength
from cloverleaf.data.writers.layout import Tally, box_area


class CocoWriter:
    """`annotations/<split>.json` and `images/`."""

    def __init__(self, output: Path, header: Header, tally: Tally) -> None:
        self._output, self._header, self._tally = output, header, tally
        self._images: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._annotations: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._image_ids: set[int] = set()
        self._annotation_ids: set[int] = set()

    def image_folder(self, split: str) -> Path:
        """One folder for all splits."""
        return self._output / "images"

    def add(self, split: str, record: ImageRecord, name: str, size_hw: tuple[int, int]) -> None:
        """Collect an image and its annotations; ids are kept while they are unique over all splits."""
        image_id = _free(record.image_id, self._image_ids)
        image = {"id": image_id, "file_name": name, "width": size_hw[1], "height": size_hw[0]}
        if self._header.tag_ids:
            image["tags"] = [self._header.tag_ids[tag] for tag in record.tags]
        self._images[split].append(image)
        for found in record.objects:
            annotation_id = _free(found.annotation_id or 0, self._annotation_ids)
            self._annotations[split].append(self._annotation(found, annotation_id, image_id))

    def _annotation(self, found: ObjectRecord, annotation_id: int, image_id: int) -> dict[str, Any]:
        x1, y1, x2, y2 = found.box_xyxy
        row: dict[str, Any] = {
            "id": annotation_id,
            "image_id": image_id,
            "category_id": self._header.category_ids[found.label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": box_area(found) if found.area is None else found.area,
            "iscrowd": int(found.crowd),
        }
        if isinstance(found.segmentation, RunLength):
            counts = found.segmentation.counts.decode()
            row["segmentation"] = {"size": list(found.segmentation.size_hw), "counts": counts}
        elif found.segmentation is not None:
            row["segmentation"] = [ring.reshape(-1).tolist() for ring in found.segmentation]
        if found.identity is not None:
            row["identity"] = found.identity
        row.update({flag: 1 for flag in ("difficult", "truncated") if getattr(found, flag)})
        return row

    def finish(self) -> None:
        """Write the files."""
        folder = self._output / "annotations"
        folder.mkdir(parents=True, exist_ok=True)
        header = self._header
        categories = [{"id": k, "name": name} for k, name in zip(header.category_ids, header.names, strict=True)]
        for split, images in self._images.items():
            content: dict[str, Any] = {"images": images, "annotations": self._annotations[split]}
            content["categories"] = categories
            if header.tag_names:
                pairs = zip(header.tag_ids, header.tag_names, strict=True)
                content["tags"] = [{"id": k, "name": name} for k, name in pairs]
            (folder / f"{split}.json").write_text(_lines(content), encoding="utf-8")


def _free(wanted: int, taken: set[int]) -> int:
    """The wanted id, or the next one that is free."""
    number = wanted if wanted > 0 and wanted not in taken else len(taken) + 1
    while number in taken:
        number += 1
    taken.add(number)
    return number


def _lines(content: dict[str, Any]) -> str:
    """JSON with a line per entry, so that a finding's line number leads to it."""
    sections = []
    for key, rows in content.items():
        body = ",\n".join(json.dumps(row, separators=(", ", ": "), ensure_ascii=False) for row in rows)
        sections.append(f'"{key}": [\n{body}\n]')
    return "{\n" + ",\n".join(sections) + "\n}\n"
