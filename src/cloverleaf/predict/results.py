"""The folder that a prediction run leaves: annotated pictures, crops, JSON."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf import atomic
from cloverleaf.drawing.sheet import save_picture
from cloverleaf.errors import DataError
from cloverleaf.ops.masks import compressed
from cloverleaf.predict.draw import draw_result
from cloverleaf.predict.sources import Picture, Unreadable
from cloverleaf.structures import Classification, Detections, LabelMap

Found = Detections | LabelMap | Classification
_KEPT_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def numbered(base: Path, suffix: str = "") -> Iterator[Path]:
    """``base``, ``base-2``, ``base-3``, ... without end; ``suffix`` comes behind the number."""
    yield base.with_name(f"{base.name}{suffix}")
    for number in itertools.count(2):
        yield base.with_name(f"{base.name}-{number}{suffix}")


def new_folder(base: Path) -> Path:
    """Make and return ``base``, or the first free one of ``base-2``, ``base-3``, ..."""
    for folder in numbered(base):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError("numbers do not end")


def make_folder(folder: Path) -> Path:
    """Make a folder that may exist.

    Raises:
        DataError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cannot make the folder {folder}", error.strerror or str(error), "name another one") from error
    return folder


@contextmanager
def results_in(output: Path | None, usual: Path) -> Iterator[Path]:
    """The folder for results, ``output`` or a new one like ``usual``; one that was made for nothing goes again.

    Raises:
        DataError: it cannot be made.
    """
    there = output is not None and output.exists()
    folder = make_folder(output) if output is not None else new_folder(usual)
    try:
        yield folder
    finally:
        if not there and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


class ResultFolder:
    """Names and writes the files of one run; a file that was read is never overwritten.

    Args:
        folder: an existing folder.
        inputs: files that were read.
    """

    def __init__(self, folder: Path, inputs: Iterable[Path] = ()) -> None:
        self.folder = folder
        self._taken = {path.resolve() for path in inputs}
        self._images: list[dict[str, Any]] = []
        self._rows: list[dict[str, Any]] = []
        self._categories: list[dict[str, Any]] = []
        self._embeddings: list[npt.NDArray[np.float32]] = []

    def reserve(self, name: str, suffix: str, folder: Path | None = None) -> Path:
        """A path in the folder that neither an input nor an earlier output of this run has."""
        path = next(p for p in numbered((folder or self.folder) / name, suffix) if p.resolve() not in self._taken)
        self._taken.add(path.resolve())
        return path

    def save_picture(self, picture: Picture, result: Found) -> Path:
        """Write the annotated picture in the format of its source (JPEG where that cannot be written)."""
        source = Path(picture.source or "image.jpg")
        suffix = source.suffix.lower() if source.suffix.lower() in _KEPT_SUFFIXES else ".jpg"
        path = self.reserve(source.stem, suffix)
        save_picture(path, draw_result(picture.pixels, result))
        return path

    def save_labels(self, found: LabelMap) -> Path:
        """Write a label map under ``labels/`` as PNG; the value of a pixel is its class, in 16 bits beyond 256."""
        folder = self.folder / "labels"
        folder.mkdir(parents=True, exist_ok=True)
        path = self.reserve(Path(found.source or "image").stem, ".png", folder)
        path.write_bytes(cv2.imencode(".png", found.labels)[1].tobytes())
        return path

    def save_crops(self, picture: Picture, detections: Detections) -> int:
        """Write every detection as a picture under ``crops/CLASS/``; returns how many."""
        height, width = picture.pixels.shape[:2]
        scale = np.array([width / detections.image_hw[1], height / detections.image_hw[0]] * 2)
        corners = detections.xyxy * scale
        low = np.floor(corners[:, :2]).astype(int)
        high = np.maximum(np.ceil(corners[:, 2:]).astype(int), low + 1)
        stem = Path(picture.source or "image").stem
        for (left, top), (right, bottom), name in zip(low, high, detections.names, strict=True):
            folder = self.folder / "crops" / (re.sub(r"[^\w. -]+", "_", name).strip(". ") or "_")
            folder.mkdir(parents=True, exist_ok=True)
            save_picture(self.reserve(stem, ".jpg", folder), picture.pixels[top:bottom, left:right])
        return len(detections)

    def record(self, result: Found, labels: Path | None = None) -> None:
        """Keep what was found in an image for `write_json`; ``labels`` is the file of a label map."""
        image_id = len(self._images) + 1
        height, width = result.image_hw
        image = {"id": image_id, "file_name": result.source, "height": height, "width": width}
        if isinstance(result, LabelMap):
            where = {} if labels is None else {"labels": str(labels.relative_to(self.folder))}
            self._images.append({**image, **where, "shares": rounded_shares(result)})
        elif isinstance(result, Classification):
            self._images.append({**image, "classes": rounded_classes(result)})
        else:
            self._images.append(image if result.tags is None else {**image, "tags": rounded_tags(result)})
            self._rows += coco_rows(result, image_id)
            if result.embeddings is not None:
                self._embeddings.append(result.embeddings)
        self._categories = categories_of(result)

    def write_json(self, unreadable: Sequence[Unreadable] = ()) -> Path:
        """Write ``predictions.json``: images, categories, detections as COCO results rows, and what was not read."""
        path = self.reserve("predictions", ".json")
        content = {
            "images": self._images,
            "categories": self._categories,
            "detections": self._rows,
            "unreadable": [{"source": item.source, "reason": item.reason} for item in unreadable],
        }
        atomic.write_json(path, content)
        return path

    def write_embeddings(self) -> Path | None:
        """Write ``embeddings.npz``, whose array ``embeddings (n, D)`` has a row per detection of ``predictions.json``
        in its order; nothing where no image was recorded."""
        if not self._embeddings:
            return None
        return write_embeddings(self.reserve("embeddings", ".npz"), self._embeddings)


def write_embeddings(path: Path, embeddings: Sequence[npt.NDArray[np.float32]]) -> Path:
    """Write rows of images or frames one after the other, as ``embeddings (n, D)`` float32."""
    content = io.BytesIO()
    np.savez_compressed(content, embeddings=np.concatenate(embeddings))
    atomic.write_bytes(path, content.getvalue())
    return path


def categories_of(result: Found) -> list[dict[str, Any]]:
    """COCO categories of the model behind ``result``; of a label map the values of its pixels."""
    known = result.category_ids if isinstance(result, Detections) else None
    ids = known or range(len(result.class_names))
    return [{"id": i, "name": name} for i, name in zip(ids, result.class_names, strict=True)]


def coco_rows(detections: Detections, image_id: int) -> list[dict[str, Any]]:
    """COCO results rows, with ``segmentation`` as compressed run lengths where there are masks."""
    rows = detections.to_coco(image_id)
    for row, mask in zip(rows, detections.masks or (), strict=False):
        row["segmentation"] = compressed(mask, detections.image_hw)
    return rows


def rounded_tags(found: Detections) -> dict[str, float]:
    """Probability of every tag, for JSON."""
    assert found.tags is not None
    return {name: round(score, 5) for name, score in zip(found.tag_names, found.tags.tolist(), strict=True)}


def rounded_classes(found: Classification) -> list[dict[str, Any]]:
    """Names and probabilities of the five likeliest classes, for JSON."""
    return [{"name": name, "score": round(score, 5)} for name, score in found.top()]


def rounded_shares(found: LabelMap) -> dict[str, float]:
    """Share of the pixels of each class that is there, for JSON."""
    return {name: round(share, 6) for name, share in found.shares.items()}
