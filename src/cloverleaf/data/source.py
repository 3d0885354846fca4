"""`--data`: a YAML, a JSON or a folder becomes the splits of a dataset, whatever its format."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.index_build import IndexBuilder
from cloverleaf.data.index_store import cache_folder, find_index, write_index
from cloverleaf.data.readers.detect import find_splits
from cloverleaf.data.readers.files import digest
from cloverleaf.data.readers.splits import canonical_split
from cloverleaf.data.records import Fault, SplitReader, refuse
from cloverleaf.errors import DataError, suggest

logger = logging.getLogger(__name__)


def list_splits(source: str | Path) -> list[str]:
    """Names of the splits of a dataset, in the order train, val, test, others."""
    return list(find_splits(Path(source)))


def open_split(source: str | Path, split: str) -> SplitReader:
    """The reader of one split; raises `DataError` with the splits there are."""
    splits = find_splits(Path(source))
    name = split if split in splits else canonical_split(split)
    if name not in splits:
        raise DataError(
            what=f"{source} has no split {split!r}",
            why=f"it has {', '.join(splits) or 'none'}",
            fix=suggest(split, splits),
        )
    return splits[name]


def open_index(source: str | Path, split: str = "train", *, cache_dir: str | Path | None = None) -> DetectionIndex:
    """A split of a dataset as memory-mapped arrays, built on first use and found again afterwards.

    Args:
        source: a `data.yaml`, a COCO JSON or a folder (COCO, YOLO or Pascal VOC).
        split: train, val, test or another that the dataset has; `valid` and the like mean val.
        cache_dir: where to keep the arrays; by default `.cloverleaf-index` in the dataset, or the user's cache folder
            when the dataset cannot be written.

    Boxes are clipped to the image; those without size, not finite or outside are left out, as are missing images; one
    logged summary gives the counts. Objects marked difficult are kept.

    Raises:
        DataError: the source is not recognised, has no such split, no usable image or box, or labels that are not
            among the classes.
    """
    reader = open_split(source, split)
    folder = cache_folder(reader.root, None if cache_dir is None else Path(cache_dir))
    key = f"{reader.split}-{digest([reader.identity.encode()])[:12]}"
    fingerprint = reader.fingerprint()
    directory = folder / f"{key}-{fingerprint}"
    index = find_index(directory) or _build(reader, directory, fingerprint)
    _tell(index, source)
    return index


def _build(reader: SplitReader, directory: Path, fingerprint: str) -> DetectionIndex:
    builder = IndexBuilder(reader.root)

    def report(fault: Fault) -> None:
        refuse(fault)
        builder.note(_PLURALS.get(fault.code, fault.code), str(fault.location))

    opened = reader.open(report)
    for record in opened.images:
        builder.add(record)
    builder.require_usable(f"split {reader.split!r} of {reader.root}", opened.header)
    arrays = builder.arrays()
    header = opened.header
    meta = {
        "names": header.names,
        "category_ids": header.category_ids,
        "tag_names": header.tag_names,
        "tag_ids": header.tag_ids,
        "split": reader.split,
        "format": reader.format,
        "source": str(reader.root),
        "fingerprint": fingerprint,
        "has_identities": bool((arrays["identities"] >= 0).any()),
        "removed": {name: count for name, count in builder.counts.items() if name in builder.examples},
        "examples": builder.examples,
    }
    return write_index(directory, arrays, meta)


_PLURALS = {
    "unknown-image": "annotations of images that are not listed",
    "broken-segmentation": "outlines that cannot be used",
}


def _tell(index: DetectionIndex, source: str | Path) -> None:
    """One line when the labels are not used as they are."""
    if index.removed:
        counts = ", ".join(f"{count} {name}" for name, count in index.removed.items())
        _tell_once(index.split, str(source), counts)


@cache
def _tell_once(split: str, source: str, counts: str) -> None:
    """A command opens a split more than once; only the first time is worth a line."""
    logger.warning(
        "split %r of %s: %s. Run `cloverleaf data check %s` for files and lines.", split, source, counts, source
    )
