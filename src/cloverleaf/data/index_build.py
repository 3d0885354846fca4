"""From a reader's records to the arrays of an index: bad boxes and missing images are left out, and counted."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.data.image_io import image_size
from cloverleaf.data.outline import outline
from cloverleaf.data.readers.files import Listing
from cloverleaf.data.records import Header, ImageRecord, ObjectRecord, RunLength
from cloverleaf.errors import DataError, ImageError

_MIN_SIDE = 1e-3  # pixels; a thinner box is no box


class IndexBuilder:
    """Collects records into flat buffers (no Python object per image or box stays alive)."""

    def __init__(self, root: Path) -> None:
        self._root = f"{root}/"
        self._listing = Listing()
        self._paths = bytearray()
        self._ints = {name: array("q", [0]) for name in ("path_offsets", "object_offsets", "object_rings")}
        self._ints |= {name: array("q", [0]) for name in ("ring_offsets", "rle_offsets", "tag_offsets")}
        self._ints |= {name: array("q") for name in ("image_ids", "identities", "annotation_ids")}
        self._small = {name: array("i") for name in ("sizes_hw", "labels", "tag_values")}
        self._doubles = {name: array("d") for name in ("boxes_xyxy", "areas")}
        self._crowd = bytearray()
        self._points = array("f")
        self._rle = bytearray()
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def note(self, reason: str, example: str) -> None:
        """Count something left out."""
        self.counts[reason] += 1
        self.examples.setdefault(reason, example)

    def add(self, record: ImageRecord) -> None:
        """Add an image, unless it is missing or its size cannot be found."""
        self.counts["images seen"] += 1
        if record.path not in self._listing:
            return self.note("missing images", str(record.path))
        size_hw = record.size_hw
        if size_hw is None and not record.problem:
            try:
                size_hw = image_size(record.path)
            except ImageError as error:
                record.problem = f"{error.what}: {error.why}"
        if size_hw is None:
            return self.note("unreadable images", str(record.path))
        for found in record.objects:
            self._add_object(found, size_hw)
        path = str(record.path).removeprefix(self._root)
        self._paths += path.encode(errors="surrogateescape")
        self._ints["path_offsets"].append(len(self._paths))
        self._small["sizes_hw"].extend(size_hw)
        self._ints["image_ids"].append(record.image_id)
        self._ints["object_offsets"].append(len(self._small["labels"]))
        self._small["tag_values"].extend(record.tags)
        self._ints["tag_offsets"].append(len(self._small["tag_values"]))
        return None

    def _add_object(self, found: ObjectRecord, size_hw: tuple[int, int]) -> None:
        self.counts["boxes seen"] += 1
        x1, y1, x2, y2 = found.box_xyxy
        height, width = size_hw
        if not (x2 - x1 > 0 and y2 - y1 > 0):  # also NaN
            return self.note("boxes without size or not finite", str(found.location))
        cut = (min(max(x1, 0.0), width), min(max(y1, 0.0), height), min(max(x2, 0.0), width), min(max(y2, 0.0), height))
        if cut[2] - cut[0] < _MIN_SIDE or cut[3] - cut[1] < _MIN_SIDE:
            return self.note("boxes outside the image", str(found.location))
        overhang = max(cut[0] - x1, cut[1] - y1, x2 - cut[2], y2 - cut[3])
        area = found.area if found.area is not None and found.area > 0 else (x2 - x1) * (y2 - y1)
        if overhang > 0:
            if overhang > 1:  # rounding is not worth a warning
                self.note("boxes cut at the image border", str(found.location))
            if found.segmentation is None:
                area = (cut[2] - cut[0]) * (cut[3] - cut[1])
        self._doubles["boxes_xyxy"].extend(cut)
        self._doubles["areas"].append(area)
        self._small["labels"].append(found.label)
        self._crowd.append(found.crowd)
        self._ints["identities"].append(-1 if found.identity is None else found.identity)
        self._ints["annotation_ids"].append(-1 if found.annotation_id is None else found.annotation_id)
        self._add_segmentation(found)
        return None

    def _add_segmentation(self, found: ObjectRecord) -> None:
        segmentation = found.segmentation
        rings: Iterable[npt.NDArray[Any]] = ()
        if isinstance(segmentation, RunLength):
            self._rle += segmentation.counts
            rings = outline(segmentation)
        elif segmentation is not None:
            rings = segmentation
        offsets = self._ints["ring_offsets"]
        for ring in rings:
            self._points.frombytes(np.ascontiguousarray(ring, dtype=np.float32).tobytes())
            offsets.append(len(self._points) // 2)
        self._ints["object_rings"].append(len(offsets) - 1)
        self._ints["rle_offsets"].append(len(self._rle))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The buffers as arrays."""
        buffers: dict[str, array[Any]] = {**self._ints, **self._small, **self._doubles}
        found: dict[str, npt.NDArray[Any]] = {name: np.array(values) for name, values in buffers.items()}
        found["path_blob"] = np.frombuffer(bytes(self._paths), dtype=np.uint8)
        found["rle_blob"] = np.frombuffer(bytes(self._rle), dtype=np.uint8)
        found["crowd"] = np.frombuffer(bytes(self._crowd), dtype=np.bool_)
        found["points"] = np.array(self._points, dtype=np.float32)
        ids = found["annotation_ids"]
        if (ids < 0).any() or len(np.unique(ids)) < len(ids):  # formats without ids, or ids that are no ids
            found["annotation_ids"] = np.arange(1, len(ids) + 1)
        return found

    def require_usable(self, where: str, header: Header) -> None:
        """Refuse a split of which nothing is left; raises `DataError`."""
        if len(self._ints["image_ids"]) == 0:
            reason = next(iter(self.examples.items()), None)
            why = "it lists no images" if reason is None else f"{self.counts[reason[0]]} {reason[0]}, first {reason[1]}"
            raise DataError(f"{where} has no usable image", why, "check the image folder and the paths in the file")
        if self.counts["boxes seen"] and not len(self._small["labels"]):
            reason_name, example = next((key, value) for key, value in self.examples.items() if key.startswith("boxes"))
            raise DataError(
                what=f"{where} has no usable box",
                why=f"all {self.counts['boxes seen']} are {reason_name}, first {example}",
                fix="check the box format: COCO [x, y, w, h] pixels, YOLO centre and size as fractions, VOC corners",
            )
        assert len(header.names) > max(self._small["labels"], default=-1)
