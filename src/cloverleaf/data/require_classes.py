"""Refuse a dataset of the wrong kind: objects where whole images are to be classified, or the other way round."""

from __future__ import annotations

from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.readers.class_folders import FORMAT
from cloverleaf.errors import DataError


def require_class_folders(index: DetectionIndex) -> None:
    """Raise `DataError` where images have labelled objects instead of a class each."""
    if index.format != FORMAT:
        raise DataError(
            what=f"{index.source} has no folder for each class",
            why=f"--task classify reads train/CLASS/*.jpg and val/CLASS/*.jpg; this is {index.format.upper()}, with "
            "labelled objects",
            fix=f"cut the objects out: cloverleaf data convert {index.source} --to class-folders --output crops",
        )


def require_objects(index: DetectionIndex) -> None:
    """Raise `DataError` where images have a class each instead of labelled objects."""
    if index.format == FORMAT:
        raise DataError(
            what=f"{index.source} has no labelled objects",
            why="it holds a folder for each class, so that whole images have a class",
            fix="use --task classify, or a dataset in COCO, YOLO or Pascal VOC format",
        )
