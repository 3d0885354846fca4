"""Selecting and joining the objects of samples, with everything that belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import numpy.typing as npt

from cloverleaf.structures import Polygons, Sample


def select(sample: Sample, keep: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Sample:
    """The same image with some of its objects, by mask or by index."""
    index = np.flatnonzero(keep) if keep.dtype == np.bool_ else keep
    return replace(
        sample,
        boxes_xyxy=sample.boxes_xyxy[index],
        labels=sample.labels[index],
        polygons=None if sample.polygons is None else tuple(sample.polygons[i] for i in index.tolist()),
        identities=None if sample.identities is None else sample.identities[index],
        crowd=None if sample.crowd is None else sample.crowd[index],
    )


def join(image: npt.NDArray[np.uint8], parts: Sequence[Sample]) -> Sample:
    """All objects of ``parts`` on ``image``; the ids are those of the first part, the tags what all parts agree on.

    Where they disagree a tag is not known (NaN): one that says what can be seen somewhere may have been cut away, and
    one that speaks of the whole image ("empty", "dim") is not that of four images because it is that of one.

    Boxes and outlines must already be in pixels of ``image``.
    """
    outlined = any(part.polygons is not None for part in parts)
    identified = any(part.identities is not None for part in parts)
    crowded = any(part.crowd is not None for part in parts)
    tags = [part.tags for part in parts if part.tags is not None]
    covered = [part.covered for part in parts if part.covered is not None]
    empty: tuple[Polygons, ...] = ((),)
    polygons = tuple(chain.from_iterable(part.polygons or empty * len(part) for part in parts))
    return replace(
        parts[0],
        image=image,
        boxes_xyxy=np.concatenate([part.boxes_xyxy for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        polygons=polygons if outlined else None,
        identities=np.concatenate([_or_fill(part.identities, len(part), -1) for part in parts]) if identified else None,
        crowd=np.concatenate([_or_fill(part.crowd, len(part), 0).astype(bool) for part in parts]) if crowded else None,
        tags=_agreed(np.stack(tags)) if tags else None,
        letterbox=None,
        covered=tuple(chain.from_iterable(covered)) if covered else None,
    )


def _agreed(tags: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """``(parts, T)`` -> ``(T,)``."""
    return np.where((tags == tags[0]).all(0), tags[0], np.float32(np.nan))


def _or_fill(values: npt.NDArray[np.generic] | None, length: int, value: int) -> npt.NDArray[np.int64]:
    return np.full(length, value, np.int64) if values is None else values.astype(np.int64)
