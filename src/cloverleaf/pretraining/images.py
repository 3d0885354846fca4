"""Which images there are to learn from."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cloverleaf.data.cpus import usable_cpus
from cloverleaf.data.image_io import image_size
from cloverleaf.data.source import open_index
from cloverleaf.errors import DataError, ImageError
from cloverleaf.predict.sources import COMMON_SUFFIXES, IMAGE_SUFFIXES
from cloverleaf.pretraining.config import ImagesConfig

logger = logging.getLogger(__name__)
_SHOWN = 3
_LEAST_SIDE = 8  # pixels; less is no picture of anything


@dataclass(frozen=True, slots=True)
class ImageList:
    """Images in a fixed order.

    Attributes:
        paths: the usable ones.
        unreadable: files that look like images by their names and are not, or are too small.
    """

    paths: tuple[Path, ...]
    unreadable: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    def fingerprint(self) -> str:
        """Twelve hex digits over the names, in their order: a resumed run needs the same images."""
        return hashlib.sha256("\n".join(path.name for path in self.paths).encode()).hexdigest()[:12]


def find_images(config: ImagesConfig) -> ImageList:
    """The images of a folder and all folders below it, or of one split of a dataset.

    Headers are read; what is no image is left out with one warning.

    Raises:
        DataError: nothing is there, or nothing that can be used.
    """
    found = _candidates(config)
    usable, faults = _readable(found)
    if not usable:
        why = f"{len(found)} files look like images and none can be read, e.g. {faults[0]}" if found else (
            f"no file below it ends in {', '.join(COMMON_SUFFIXES)} or another suffix of images"
        )  # fmt: skip
        raise DataError(f"{config.source} holds no usable image", why, "check --images")
    if faults:
        logger.warning(
            "%d of %d images cannot be used and are left out: %s%s",
            len(faults), len(found), "; ".join(faults[:_SHOWN]), "; ..." if len(faults) > _SHOWN else "",
        )  # fmt: skip
    return ImageList(tuple(usable), len(faults))


def count_images(config: ImagesConfig) -> int:
    """How many images there seem to be, by their names; errors as `find_images` where there is no such place."""
    return len(_candidates(config))


def _candidates(config: ImagesConfig) -> list[Path]:
    source = Path(config.source).expanduser()
    if not source.exists():
        raise DataError(f"no images at {source}", "the path does not exist", "check --images")
    if source.is_dir():
        return _below(source)
    if source.suffix.lower() in IMAGE_SUFFIXES:
        raise DataError(f"{source} is one image", "pre-training needs many", "give the folder that they lie in")
    index = open_index(source, config.split)
    return [index.image_path(i) for i in range(len(index))]


def _below(folder: Path) -> list[Path]:
    """Image files in any depth, by name; hidden files and folders are left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def _readable(paths: Iterable[Path]) -> tuple[list[Path], list[str]]:
    """Those that can be read, and what is wrong with the others."""
    paths = list(paths)
    with ThreadPoolExecutor(usable_cpus()) as pool:
        faults = list(pool.map(_fault, paths))
    good = [path for path, fault in zip(paths, faults, strict=True) if not fault]
    return good, [fault for fault in faults if fault]


def _fault(path: Path) -> str:
    try:
        height, width = image_size(path)
    except ImageError as error:
        return error.what
    return f"{path} has {width} x {height} pixels" if min(height, width) < _LEAST_SIDE else ""
