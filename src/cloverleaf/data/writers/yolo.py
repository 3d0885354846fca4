"""YOLO text labels with a `data.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import yaml

from cloverleaf.data.outline import outline
from cloverleaf.data.records import Header, ImageRecord, ObjectRecord, RunLength
from cloverleaf.data.writers.layout import Tally, box_area, is_finite

_SAME = 1e-4  # pixels


class YoloWriter:
    """`images/<split>/`, `labels/<split>/` and `data.yaml`.

    Args:
        segments: write outlines (`class x1 y1 x2 y2 ...`) instead of boxes where an object has one.
    """

    def __init__(self, output: Path, header: Header, tally: Tally, *, segments: bool) -> None:
        self._output, self._header, self._tally, self._segments = output, header, tally, segments
        self._splits: dict[str, None] = {}
        if header.tag_names:
            tally.lost["image tags"] = 0

    def image_folder(self, split: str) -> Path:
        """One folder per split."""
        return self._output / "images" / split

    def add(self, split: str, record: ImageRecord, name: str, size_hw: tuple[int, int]) -> None:
        """Write the label file of an image."""
        if split not in self._splits:
            self._splits[split] = None
            (self._output / "labels" / split).mkdir(parents=True, exist_ok=True)
        self._tally.lost["image tags"] += len(record.tags)
        rows = [self._row(found, size_hw) for found in record.objects if self._can_carry(found)]
        file = self._output / "labels" / split / f"{Path(name).stem}.txt"
        file.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")

    def _can_carry(self, found: ObjectRecord) -> bool:
        lost = self._tally.lost
        if found.crowd:
            lost["crowd regions (left out: they would count as single objects)"] += 1
            return False
        if not is_finite(found):
            lost["boxes that are not finite (left out)"] += 1
            return False
        lost["difficult flags"] += found.difficult
        lost["truncated flags"] += found.truncated
        lost["identities"] += found.identity is not None
        lost["mask areas"] += found.area is not None and abs(found.area - box_area(found)) > 1e-3
        if found.segmentation is not None and not self._segments:
            lost["outlines (pass --segments to write them instead of boxes)"] += 1
        return True

    def _row(self, found: ObjectRecord, size_hw: tuple[int, int]) -> str:
        height, width = size_hw
        rings = _rings(found) if self._segments else ()
        if rings:
            ring = _joined(rings)
            self._tally.lost["outlines of several parts (joined into one)"] += len(rings) > 1
            self._tally.lost["exact masks (traced as outlines)"] += isinstance(found.segmentation, RunLength)
            values = (ring / (width, height)).reshape(-1).tolist()
            self._tally.lost["boxes that differ from their outline's bounds"] += not _bounds_equal(found, ring)
        else:
            x1, y1, x2, y2 = found.box_xyxy
            values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        return " ".join([str(found.label), *(f"{value:.14g}" for value in values)])

    def finish(self) -> None:
        """Write `data.yaml`."""
        content: dict[str, object] = {"path": "."}
        content.update({split: f"images/{split}" for split in self._splits})
        content["names"] = dict(enumerate(self._header.names))
        if self._header.category_ids != tuple(range(1, len(self._header.names) + 1)):
            content["category_ids"] = list(self._header.category_ids)
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (self._output / "data.yaml").write_text(text, encoding="utf-8")


def outline_says_all(found: ObjectRecord) -> bool:
    """Whether a YOLO outline row loses nothing of the object: one ring whose bounds are the box."""
    segmentation = found.segmentation
    return isinstance(segmentation, tuple) and len(segmentation) == 1 and _bounds_equal(found, segmentation[0])


def _bounds_equal(found: ObjectRecord, ring: npt.NDArray[np.float64]) -> bool:
    bounds = np.concatenate([ring.min(0), ring.max(0)])
    return bool(np.abs(bounds - found.box_xyxy).max() < _SAME)


def _rings(found: ObjectRecord) -> Sequence[npt.NDArray[np.float64]]:
    if isinstance(found.segmentation, RunLength):
        return [ring.astype(np.float64) for ring in outline(found.segmentation)]
    return found.segmentation or ()


def _joined(rings: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """One ring that visits the others over bridges of no width, each there and back."""
    if len(rings) == 1:
        return rings[0]
    start = rings[0][:1]
    parts = [rings[0], start]
    for ring in rings[1:]:
        parts += [ring, ring[:1], start]
    return np.concatenate(parts)
