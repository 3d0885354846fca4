"""`cloverleaf data convert`: a dataset of one format as one of another, with a list of what could not be carried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from cloverleaf.data.readers.detect import find_splits
from cloverleaf.data.records import Header, SplitReader
from cloverleaf.data.source import open_split
from cloverleaf.data.writers.class_folders import ClassFolderWriter
from cloverleaf.data.writers.coco import CocoWriter
from cloverleaf.data.writers.layout import (
    ImageNames,
    Tally,
    Writer,
    place_image,
    require_same_classes,
    true_size,
)
from cloverleaf.data.writers.voc import VocWriter
from cloverleaf.data.writers.yolo import YoloWriter, outline_says_all
from cloverleaf.errors import ConfigError, DataError, suggest

Format = Literal["coco", "yolo", "voc", "class-folders"]


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """What `convert_dataset` wrote.

    Attributes:
        path: what to pass as `--data`.
        images, objects: written, per split.
        lost: what the format cannot carry -> how often.
    """

    path: Path
    images: dict[str, int]
    objects: dict[str, int]
    lost: dict[str, int]


def convert_dataset(
    source: str | Path,
    target_format: str,
    output: Path,
    *,
    copy_images: bool = True,
    segments: bool | None = None,
    splits: Sequence[str] | None = None,
) -> ConvertReport:
    """Write a dataset in another format; boxes keep their pixels to 1e-6, also those that are faulty.

    As class folders every object becomes an image of its own, cut out along its box, for classification.

    Args:
        source: a `data.yaml`, a COCO JSON or a folder.
        target_format: coco, yolo, voc or class-folders.
        output: a new or empty folder.
        copy_images: copy the image files; otherwise make links to them.
        segments: for YOLO, write outlines instead of boxes; None writes them when nothing is lost by it, that is when
            every object has one outline whose bounds are its box.
        splits: which; all by default.

    Raises:
        ConfigError: an unknown format, or an option that it does not have.
        DataError: the output is not empty, or the source cannot be read.
    """
    if target_format not in get_args(Format):
        raise ConfigError(f"no format {target_format!r}", fix=suggest(target_format, get_args(Format)))
    cuts = target_format == "class-folders"
    if cuts and (segments is not None or not copy_images):
        option = "segments" if segments is not None else "link"
        raise ConfigError(f"{option} has no effect", "class folders hold new images, without labels", "leave it out")
    output = Path(output)
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise DataError(f"{output} is not empty", "converted files must not mix with others", "name a new folder")
    readers = [open_split(source, split) for split in splits] if splits else list(find_splits(Path(source)).values())
    header = require_same_classes({reader.split: reader.open().header for reader in readers})
    tally = Tally()
    writer = _writer(target_format, output, header, tally, segments, readers)
    names = ImageNames()
    for reader in readers:
        for record in reader.open().images:
            name = names(record.path)
            writer.add(reader.split, record, name, true_size(record))
            if not cuts:
                place_image(record.path, writer.image_folder(reader.split) / name, copy=copy_images, tally=tally)
            tally.images[reader.split] += 1
            tally.objects[reader.split] += len(record.objects)
    writer.finish()
    lost = {what: count for what, count in tally.lost.items() if count}
    path = output / "data.yaml" if target_format == "yolo" else output
    return ConvertReport(path, dict(tally.images), dict(tally.objects), lost)


def _writer(
    target_format: str, output: Path, header: Header, tally: Tally, segments: bool | None, readers: list[SplitReader]
) -> Writer:
    output.mkdir(parents=True, exist_ok=True)
    if target_format == "coco":
        return CocoWriter(output, header, tally)
    if target_format == "class-folders":
        return ClassFolderWriter(output, header, tally)
    if target_format == "voc":
        return VocWriter(output, header, tally)
    if segments is None:
        objects = [found for reader in readers for record in reader.open().images for found in record.objects]
        segments = bool(objects) and all(outline_says_all(found) for found in objects)
    return YoloWriter(output, header, tally, segments=segments)
