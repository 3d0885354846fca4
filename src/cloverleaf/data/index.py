"""A split's annotations as compact, memory-mapped arrays: a million images cost no Python objects and no copies."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.data.records import RunLength
from cloverleaf.errors import DataError
from cloverleaf.structures.sample import Polygons

SCHEMA = 2
META = "meta.json"

# name: (dtype, trailing shape). N images, M objects, R rings, P points.
ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "path_blob": ("uint8", ()),  # UTF-8, relative to the source's root where possible
    "path_offsets": ("int64", ()),  # N + 1
    "sizes_hw": ("int32", (2,)),  # N
    "image_ids": ("int64", ()),  # N
    "object_offsets": ("int64", ()),  # N + 1
    "boxes_xyxy": ("float64", (4,)),  # M
    "labels": ("int32", ()),  # M
    "crowd": ("bool", ()),  # M
    "areas": ("float64", ()),  # M
    "identities": ("int64", ()),  # M, -1 for none
    "annotation_ids": ("int64", ()),  # M
    "object_rings": ("int64", ()),  # M + 1, into ring_offsets
    "ring_offsets": ("int64", ()),  # R + 1, into points
    "points": ("float32", (2,)),  # P
    "rle_offsets": ("int64", ()),  # M + 1
    "rle_blob": ("uint8", ()),  # compressed COCO run lengths, of the image's size
    "tag_offsets": ("int64", ()),  # N + 1
    "tag_values": ("int32", ()),
}


@dataclass(frozen=True, slots=True)
class ImageObjects:
    """The objects of one image.

    Attributes:
        boxes_xyxy: ``(n, 4)`` float64 pixels of the original image, inside it, of positive size.
        labels: ``(n,)`` int64.
        crowd: ``(n,)`` bool.
        areas: ``(n,)`` float64 square pixels: of the mask where the dataset says so, else of the box.
        identities: ``(n,)`` int64, -1 for none; None when the dataset has no identities.
        polygons: per object its outlines on pixel edges (run-length masks are traced when the index is built, with
            their holes; see `cloverleaf.data.outline`); None when the dataset has none.
    """

    boxes_xyxy: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.float64]
    identities: npt.NDArray[np.int64] | None
    polygons: tuple[Polygons, ...] | None

    def __len__(self) -> int:
        return len(self.labels)


class DetectionIndex:
    """A split, opened from its folder of arrays; pickles as the path of that folder, so processes share the pages.

    Args:
        directory: as `cloverleaf.data.index_store.write_index` left it.

    Raises:
        DataError: the folder is not a complete index of this version.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        try:
            meta = json.loads((self.directory / META).read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise DataError(
                f"{directory} is not an index", str(error), "delete the folder; it is made again"
            ) from error
        if meta.get("schema") != SCHEMA:
            raise DataError(
                f"the index {directory} has schema {meta.get('schema')}", f"expected {SCHEMA}", "delete the folder"
            )
        self._meta: dict[str, Any] = meta
        self._arrays = {name: self._map(name, shape) for name, shape in meta["shapes"].items()}
        self.names: tuple[str, ...] = tuple(meta["names"])
        self.category_ids: tuple[int, ...] = tuple(meta["category_ids"])
        self.tag_names: tuple[str, ...] = tuple(meta["tag_names"])
        self.split: str = meta["split"]
        self.format: str = meta["format"]
        self.source = Path(meta["source"])
        self.fingerprint: str = meta["fingerprint"]
        self.has_polygons: bool = len(self._arrays["ring_offsets"]) > 1
        self.has_identities: bool = bool(meta["has_identities"])

    def _map(self, name: str, shape: list[int]) -> npt.NDArray[Any]:
        path = self.directory / f"{name}.npy"
        if 0 in shape:  # an empty file cannot be mapped
            return np.zeros(shape, dtype=ARRAYS[name][0])
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be mapped", str(error), "delete the index folder") from error
        if list(array.shape) != shape:
            raise DataError(f"{path} has shape {array.shape}", f"expected {shape}", "delete the index folder")
        return array.view(np.ndarray)  # slicing a memmap object is several times slower

    def __reduce__(self) -> tuple[type[DetectionIndex], tuple[Path]]:
        return type(self), (self.directory,)

    def __len__(self) -> int:
        return len(self._arrays["image_ids"])

    def __repr__(self) -> str:
        return (
            f"DetectionIndex({self.format} {self.split!r} of {self.source}: {len(self)} images, "
            f"{len(self.labels)} objects, {len(self.names)} classes)"
        )

    @property
    def sizes_hw(self) -> npt.NDArray[np.int32]:
        """``(N, 2)`` int32, as the annotations say (the linter compares with the files)."""
        return self._arrays["sizes_hw"]

    @property
    def object_offsets(self) -> npt.NDArray[np.int64]:
        """``(N + 1,)`` int64: objects of image i are rows offsets[i] to offsets[i + 1]."""
        return self._arrays["object_offsets"]

    @property
    def boxes_xyxy(self) -> npt.NDArray[np.float64]:
        """``(M, 4)`` float64 pixels."""
        return self._arrays["boxes_xyxy"]

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """``(M,)`` int32."""
        return self._arrays["labels"]

    @property
    def crowd(self) -> npt.NDArray[np.bool_]:
        """``(M,)`` bool."""
        return self._arrays["crowd"]

    @property
    def identities(self) -> npt.NDArray[np.int64]:
        """``(M,)`` int64, -1 for none."""
        return self._arrays["identities"]

    @property
    def areas(self) -> npt.NDArray[np.float64]:
        """``(M,)`` float64 square pixels."""
        return self._arrays["areas"]

    @property
    def image_ids(self) -> npt.NDArray[np.int64]:
        """``(N,)`` int64."""
        return self._arrays["image_ids"]

    @property
    def removed(self) -> dict[str, int]:
        """What was left out or changed when the index was built: reason -> count."""
        return dict(self._meta["removed"])

    @cached_property
    def _path_bytes(self) -> memoryview:
        return memoryview(self._arrays["path_blob"])  # type: ignore[arg-type]  # arrays are buffers

    def image_path(self, i: int) -> Path:
        """Path of image ``i``."""
        start, stop = self._arrays["path_offsets"][i : i + 2]
        return self.source / bytes(self._path_bytes[start:stop]).decode(errors="surrogateescape")

    def image_id(self, i: int) -> int:
        """Id of image ``i`` in the dataset."""
        return int(self._arrays["image_ids"][i])

    def size_hw(self, i: int) -> tuple[int, int]:
        """(H, W) of image ``i``."""
        height, width = self._arrays["sizes_hw"][i]
        return int(height), int(width)

    def objects(self, i: int) -> ImageObjects:
        """Objects of image ``i``, as copies."""
        start, stop = (int(value) for value in self.object_offsets[i : i + 2])
        rows = slice(start, stop)
        return ImageObjects(
            boxes_xyxy=np.array(self.boxes_xyxy[rows]),
            labels=self.labels[rows].astype(np.int64),
            crowd=np.array(self.crowd[rows]),
            areas=np.array(self.areas[rows]),
            identities=np.array(self._arrays["identities"][rows]) if self.has_identities else None,
            polygons=tuple(self._rings(row) for row in range(start, stop)) if self.has_polygons else None,
        )

    def outlined(self) -> npt.NDArray[np.bool_]:
        """``(M,)`` bool: which objects have an outline or a mask."""
        return np.diff(self._arrays["object_rings"]) > 0

    def run_lengths(self, i: int) -> list[RunLength | None]:
        """The exact masks of image ``i``'s objects, None for those that are given otherwise."""
        start, stop = (int(value) for value in self.object_offsets[i : i + 2])
        edges = self._arrays["rle_offsets"][start : stop + 1].tolist()
        blob, size_hw = self._arrays["rle_blob"], self.size_hw(i)
        return [RunLength(size_hw, bytes(blob[a:b])) if b > a else None for a, b in itertools.pairwise(edges)]

    def _rings(self, row: int) -> Polygons:
        first, last = (int(value) for value in self._arrays["object_rings"][row : row + 2])
        edges = self._arrays["ring_offsets"][first : last + 1].tolist()
        points = self._arrays["points"]
        return tuple(np.array(points[a:b]) for a, b in itertools.pairwise(edges))

    def tags(self, i: int) -> npt.NDArray[np.float32] | None:
        """``(T,)`` float32 of 0 and 1 over `tag_names`; None when the dataset has no tags."""
        if not self.tag_names:
            return None
        start, stop = self._arrays["tag_offsets"][i : i + 2]
        values = np.zeros(len(self.tag_names), dtype=np.float32)
        values[self._arrays["tag_values"][start:stop]] = 1
        return values

    def content(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """All arrays, not to be changed, and the facts that `write_index` takes."""
        meta = {key: value for key, value in self._meta.items() if key not in ("schema", "shapes")}
        return dict(self._arrays), meta

    def to_coco(self) -> dict[str, Any]:
        """The ground truth as a COCO dictionary with the original category ids; masks exact, polygons as float32."""
        image_rows = np.repeat(np.arange(len(self)), np.diff(self.object_offsets))
        images = [
            {"id": image_id, "file_name": str(self.image_path(i)), "height": height, "width": width}
            for i, (image_id, (height, width)) in enumerate(
                zip(self.image_ids.tolist(), self.sizes_hw.tolist(), strict=True)
            )
        ]
        boxes = np.concatenate([self.boxes_xyxy[:, :2], self.boxes_xyxy[:, 2:] - self.boxes_xyxy[:, :2]], axis=1)
        columns = zip(
            self._arrays["annotation_ids"].tolist(),
            self.image_ids[image_rows].tolist(),
            np.asarray(self.category_ids)[self.labels].tolist(),
            boxes.tolist(),
            self.areas.tolist(),
            self.crowd.astype(int).tolist(),
            strict=True,
        )
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
        annotations: list[dict[str, Any]] = [dict(zip(keys, values, strict=True)) for values in columns]
        self._add_extras(annotations, image_rows)
        for i, image in enumerate(images if self.tag_names else []):
            start, stop = self._arrays["tag_offsets"][i : i + 2]
            image["tags"] = [self._meta["tag_ids"][k] for k in self._arrays["tag_values"][start:stop].tolist()]
        categories = [{"id": k, "name": name} for k, name in zip(self.category_ids, self.names, strict=True)]
        content: dict[str, Any] = {"images": images, "annotations": annotations, "categories": categories}
        if self.tag_names:
            pairs = zip(self._meta["tag_ids"], self.tag_names, strict=True)
            content["tags"] = [{"id": k, "name": name} for k, name in pairs]
        return content

    def _add_extras(self, annotations: list[dict[str, Any]], image_rows: npt.NDArray[np.int64]) -> None:
        """Add segmentation and identity in place."""
        if self.has_identities:
            for row, identity in enumerate(self._arrays["identities"].tolist()):
                if identity >= 0:
                    annotations[row]["identity"] = identity
        if not self.has_polygons and len(self._arrays["rle_blob"]) == 0:
            return
        offsets = self._arrays["rle_offsets"].tolist()
        for row, annotation in enumerate(annotations):
            if offsets[row + 1] > offsets[row]:
                counts = bytes(self._arrays["rle_blob"][offsets[row] : offsets[row + 1]]).decode()
                annotation["segmentation"] = {"size": self.sizes_hw[image_rows[row]].tolist(), "counts": counts}
            elif rings := self._rings(row):
                annotation["segmentation"] = [ring.reshape(-1).tolist() for ring in rings]
