"""Recognises a dataset: which format, which splits, which files."""

from __future__ import annotations

from pathlib import Path

from cloverleaf.data.readers.coco_layout import coco_beside, coco_in_folder
from cloverleaf.data.records import SplitReader
from cloverleaf.errors import DataError


def find_splits(source: Path) -> dict[str, SplitReader]:
    """Splits of a dataset by name; raises `DataError` that says what was looked for."""
    source = source.expanduser()
    if not source.exists():
        raise DataError(what=f"no dataset at {source}", why="the path does not exist", fix="check the path")
    source = source.resolve()
    if source.is_dir():
        return coco_in_folder(source)
    return coco_beside(source)
