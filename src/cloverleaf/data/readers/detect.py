"""Recognises a dataset: which format, which splits, which files."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

from cloverleaf.data.readers.class_folders import class_folders_in, looks_like_classes_without_splits
from cloverleaf.data.readers.coco_layout import coco_beside, coco_in_folder
from cloverleaf.data.readers.voc_layout import voc_in_folder
from cloverleaf.data.readers.yaml_layout import splits_in_yaml, yolo_in_folder
from cloverleaf.data.records import SplitReader
from cloverleaf.errors import DataError

logger = logging.getLogger(__name__)
_NAMES = {"coco": "COCO", "yolo": "YOLO", "voc": "Pascal VOC"}  # of objects; without them folders may be classes


def find_splits(source: Path) -> dict[str, SplitReader]:
    """Splits of a dataset by name, train first.

    A folder that holds several formats is read in the first of COCO, YOLO, Pascal VOC, and a line says so.

    Raises:
        DataError: nothing is there, or nothing known; the message says what was looked for.
    """
    source = source.expanduser()
    if not source.exists():
        raise DataError(what=f"no dataset at {source}", why="the path does not exist", fix="check the path")
    source = source.resolve()
    if source.is_dir():
        return _in_folder(source)
    suffix = source.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return splits_in_yaml(source)
    if suffix == ".json":
        return coco_beside(source)
    raise DataError(
        what=f"{source} is not a dataset",
        why=f"a file ending in {suffix} is not recognised" if suffix else "its name ends in no known format",
        fix="pass a data.yaml, a COCO .json or the dataset's folder",
    )


def _in_folder(folder: Path) -> dict[str, SplitReader]:
    found = {"coco": coco_in_folder(folder), "yolo": yolo_in_folder(folder), "voc": voc_in_folder(folder)}
    formats = [name for name, splits in found.items() if splits]
    if not formats and (classes := class_folders_in(folder)):
        return dict(classes)
    if not formats:
        entries = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir())
        raise DataError(
            what=f"{folder} is not recognised as a dataset",
            why="looked for COCO (annotations/*.json, *.json, */_annotations.coco.json), YOLO (data.yaml, images/ with "
            "labels/, train/images with train/labels), Pascal VOC (Annotations/*.xml with JPEGImages/, voc/*.xml, "
            f"train/*.xml) and, for classification, train/CLASS/*.jpg; it holds {', '.join(entries[:10]) or 'nothing'}",
            fix="put the folders of the classes into train/ and val/"
            if looks_like_classes_without_splits(folder)
            else "pass the data.yaml, the JSON file or the dataset's folder; images without labels are no dataset",
        )
    if len(formats) > 1:
        _say_once(folder, formats[0], tuple(formats[1:]))
    return found[formats[0]]


@cache
def _say_once(folder: Path, chosen: str, others: tuple[str, ...]) -> None:
    logger.warning(
        "%s also holds %s labels; reading its %s annotations",
        folder, " and ".join(_NAMES[name] for name in others), _NAMES[chosen],
    )  # fmt: skip
