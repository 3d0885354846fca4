"""A share of a split, as an index of its own, so that all that reads images sees the share only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.index_store import find_index, write_index
from cloverleaf.data.policy import generator

PURPOSE_SHARE = 0x54A8E  # of the random stream; never renumber

Array = npt.NDArray[Any]


def shared_count(total: int, fraction: float) -> int:
    """How many of ``total`` images a share has: at least one."""
    return min(max(round(total * fraction), 1), total)


def take_share(index: DetectionIndex, fraction: float, seed: int) -> DetectionIndex:
    """A random share of the images, in the order of ``index``; itself where the share is all of it.

    A larger share of the same seed holds all images of a smaller one. It is written beside the index on first use and
    found again afterwards.

    Args:
        index: all images.
        fraction: in (0, 1].
        seed: decides which images.
    """
    count = shared_count(len(index), fraction)
    if count == len(index):
        return index
    rows = np.sort(generator(seed, 0, 0, PURPOSE_SHARE).permutation(len(index))[:count])
    digest = hashlib.sha256(f"{index.directory.name} {count} {seed}".encode()).hexdigest()[:12]
    directory = index.directory.parent / f"share{digest}-{index.fingerprint}"
    arrays, meta = index.content()
    return find_index(directory) or write_index(directory, _selected(arrays, rows), meta)


def _selected(arrays: Mapping[str, Array], images: Array) -> dict[str, Array]:
    """The arrays of an index with some of its images."""
    objects, object_offsets = _spans(arrays["object_offsets"], images)
    rings, object_rings = _spans(arrays["object_rings"], objects)
    points, ring_offsets = _spans(arrays["ring_offsets"], rings)
    letters, path_offsets = _spans(arrays["path_offsets"], images)
    lengths, rle_offsets = _spans(arrays["rle_offsets"], objects)
    tags, tag_offsets = _spans(arrays["tag_offsets"], images)
    chosen = {name: arrays[name][images] for name in ("sizes_hw", "image_ids")}
    for name in ("boxes_xyxy", "labels", "crowd", "areas", "identities", "annotation_ids"):
        chosen[name] = arrays[name][objects]
    return {
        **chosen, "path_blob": arrays["path_blob"][letters], "path_offsets": path_offsets,
        "object_offsets": object_offsets, "object_rings": object_rings, "ring_offsets": ring_offsets,
        "points": arrays["points"][points], "rle_offsets": rle_offsets, "rle_blob": arrays["rle_blob"][lengths],
        "tag_offsets": tag_offsets, "tag_values": arrays["tag_values"][tags],
    }  # fmt: skip


def _spans(offsets: Array, rows: Array) -> tuple[Array, Array]:
    """What lies in some rows of a ragged array: its positions, and the new offsets."""
    starts, lengths = offsets[:-1][rows], np.diff(offsets)[rows]
    new = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.repeat(starts - new[:-1], lengths) + np.arange(new[-1]), new
