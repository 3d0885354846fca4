"""What can be looked at: files, folders, globs, videos, arrays, Pillow images; each is read when its turn comes."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloverleaf.data.image_io import MAX_PIXELS, image_size, read_image, read_resized, to_rgb_uint8
from cloverleaf.errors import DataError, ImageError

Pixels = npt.NDArray[np.uint8]

COMMON_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
_RARE = (".jpe", ".jfif", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".mpo", ".tga")
IMAGE_SUFFIXES = frozenset(COMMON_SUFFIXES + _RARE)
VIDEO_SUFFIXES = frozenset((".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts"))

REDUCED_SIDE = 4096
"""Long side to which a picture is reduced that is too large to be decoded whole."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image in memory.

    Attributes:
        pixels: ``(h, w, 3)`` uint8 RGB; smaller than the original only where that is too large to be decoded whole.
        original_hw: size of the original, in whose pixels detections are given.
        source: where it came from, "" for an array.
    """

    pixels: Pixels
    original_hw: tuple[int, int]
    source: str = ""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A source that could not be read, and why."""

    source: str
    reason: str

    def __str__(self) -> str:
        """The reason, with the source named once."""
        return self.reason if self.source in self.reason else f"{self.source}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Sources:
    """Files to look at.

    Attributes:
        images, videos: existing files in the order given, folders sorted by name (numbers by value), each once.
        unreadable: sources that name nothing.
    """

    images: tuple[Path, ...]
    videos: tuple[Path, ...]
    unreadable: tuple[Unreadable, ...] = ()


def find_sources(sources: Sequence[str | os.PathLike[str]]) -> Sources:
    """Expand files, folders (their images and videos, not deeper) and globs (``**`` goes deeper).

    A file that is named itself is taken whatever its suffix; in folders and globs only images and videos count.

    Raises:
        DataError: nothing at all was found.
    """
    images: dict[Path, None] = {}
    videos: dict[Path, None] = {}
    unreadable = []
    for given in sources:
        source, path = os.fspath(given), Path(given)
        if path.is_file():
            found, reason = [path], ""
        elif path.is_dir():
            found, reason = _media(path.iterdir()), "the folder holds no images and no videos"
        elif "://" in source:
            found, reason = [], "it is a URL; download the file first"
        elif glob.has_magic(source):
            found, reason = _media(map(Path, glob.iglob(source, recursive=True))), "nothing matches"  # noqa: PTH207
        else:
            found, reason = [], "no such file or folder"
        if not found:
            unreadable.append(Unreadable(source, reason))
        for item in found:
            (videos if item.suffix.lower() in VIDEO_SUFFIXES else images)[item] = None
    if not images and not videos:
        raise DataError(
            what="found nothing to look at",
            why="; ".join(f"{item.source}: {item.reason}" for item in unreadable[:5]) or "no source was given",
            fix="name image or video files, folders of them, or a quoted glob such as 'photos/**/*.jpg'",
        )
    return Sources(tuple(images), tuple(videos), tuple(unreadable))


def _media(paths: Iterator[Path]) -> list[Path]:
    """The images and videos among ``paths``, in natural order."""
    wanted = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    found = [path for path in paths if path.suffix.lower() in wanted and path.is_file()]
    return sorted(
        found, key=lambda path: [int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", str(path).lower())]
    )


def read_picture(path: str | os.PathLike[str]) -> Picture:
    """Read one image file; a JPEG beyond the decoder's limit is read at reduced scale.

    Raises:
        ImageError: missing, damaged, no image, or too large to be decoded.
    """
    name = os.fspath(path)
    if "://" in name:
        raise ImageError(f"{name} is a URL", "images are read from files", "download it first")
    if Path(path).is_dir():
        raise ImageError(f"{name} is a folder", "one image is expected here", "list its files, or use the command line")
    height, width = image_size(path)
    if height * width > MAX_PIXELS:
        pixels, original_hw = read_resized(path, REDUCED_SIDE)
        return Picture(pixels, original_hw, name)
    pixels = read_image(path)
    return Picture(pixels, (pixels.shape[0], pixels.shape[1]), name)


def to_picture(image: Any) -> Picture:
    """A path, a Pillow image (taken as it is, without EXIF rotation) or an RGB array ``(H, W[, 1, 3 or 4])``.

    Raises:
        ImageError: an unreadable file, or something that is no image.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, str | os.PathLike):
        return read_picture(image)
    if hasattr(image, "mode") and hasattr(image, "convert"):
        image = _from_pillow(image)
    elif not isinstance(image, np.ndarray):
        raise ImageError(
            f"cannot take a {type(image).__name__} as an image",
            "wanted a path, a Pillow image or an array",
            "pass an RGB array of shape (H, W, 3), for a tensor `tensor.permute(1, 2, 0).numpy()`",
        )
    pixels = to_rgb_uint8(image)
    return Picture(pixels, (pixels.shape[0], pixels.shape[1]))


def _from_pillow(image: Any) -> npt.NDArray[Any]:
    """Pixels of a Pillow image of any mode."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("RGB", "RGBA", "L"):
        return np.asarray(image)
    transparent = "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBa")
    return np.asarray(image.convert("RGBA" if transparent else "RGB"))


def read_ahead(paths: Sequence[Path], depth: int = 4) -> Iterator[tuple[Path, Picture | Unreadable]]:
    """Read images one after another while the caller works on the last one; a bad file yields `Unreadable`.

    Args:
        paths: image files.
        depth: how many images may be in memory before they are asked for.
    """
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting = [pool.submit(_try_read, path) for path in paths[:depth]]
        for i, path in enumerate(paths):
            yield path, waiting.pop(0).result()
            if i + depth < len(paths):
                waiting.append(pool.submit(_try_read, paths[i + depth]))


def _try_read(path: Path) -> Picture | Unreadable:
    try:
        return read_picture(path)
    except DataError as error:
        return Unreadable(str(path), str(error))
    except MemoryError:
        return Unreadable(str(path), "it does not fit into memory")
