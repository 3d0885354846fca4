"""The linter's look at image files: can they be decoded, what kind are they, which are the same."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloverleaf.data.cpus import resolve_threads
from cloverleaf.data.image_header import parse_header
from cloverleaf.data.image_io import MAX_PIXELS, read_image
from cloverleaf.data.records import Fault, Location
from cloverleaf.errors import ImageError

NEAR_CORRELATION = 0.95
"""Correlation of two thumbnails from which the images count as nearly identical."""
MAX_NEAR = 50_000
"""Beyond so many images only identical files are looked for."""
HUGE_PIXELS = 50_000_000
_SIDE = 16
_BLOCK = 2048


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a file turned out to be.

    Attributes:
        size_hw: after EXIF orientation; None when it cannot be read.
        digest: hash of the bytes.
        thumbnail: ``(256,)`` float32 of zero mean and length 1; None where it cannot be compared.
        faults: of the file itself.
    """

    path: Path
    size_hw: tuple[int, int] | None
    digest: str
    thumbnail: npt.NDArray[np.float32] | None
    faults: tuple[Fault, ...]


def inspect_all(paths: Iterable[Path], workers: int = -1) -> Iterator[ImageFacts]:
    """Facts of each file, in order; threads, because decoding and hashing leave the interpreter free."""
    with ThreadPoolExecutor(resolve_threads(workers)) as pool:
        yield from pool.map(inspect, paths)


def inspect(path: Path) -> ImageFacts:
    """Read and decode one file."""
    where = Location(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        return ImageFacts(path, None, "", None, (Fault("image-missing", error.strerror or str(error), where),))
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    faults = list(_kind(data, where))
    if any(fault.code == "image-too-large" for fault in faults):
        return ImageFacts(path, None, digest, None, tuple(faults))
    try:
        image = read_image(data)
    except ImageError as error:
        text = error.what.removeprefix("the given image").strip()
        message = f"{text}{': ' + error.why if error.why else ''}".replace("the given image", "the file")
        faults.append(Fault("image-unreadable", message, where, fix=error.fix))
        return ImageFacts(path, None, digest, None, tuple(faults))
    return ImageFacts(path, (image.shape[0], image.shape[1]), digest, _thumbnail(image), tuple(faults))


def _kind(data: bytes, where: Location) -> Iterator[Fault]:
    """Unusual kinds of images, from the header; what cannot be opened at all is left to the decoder."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data)) as opened:
                mode, (width, height) = opened.mode, opened.size
                orientation = opened.getexif().get(0x0112, 1)
                frames = getattr(opened, "n_frames", 1)
        except Image.DecompressionBombError as error:
            header = parse_header(data)
            yield Fault("image-too-large", _too_large(*header.size_hw) if header else str(error), where)
            return
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
            return
    if width * height > MAX_PIXELS:
        yield Fault("image-too-large", _too_large(height, width), where)
    elif width * height > HUGE_PIXELS:
        yield Fault("image-huge", f"{width} x {height} pixels: slow to decode", where, severity="warning")
    if mode == "CMYK":
        yield Fault("image-cmyk", "CMYK colours, converted to RGB when read", where, severity="warning")
    if mode.startswith("I") or mode == "F":
        yield Fault("image-16-bit", "more than 8 bits, scaled to 8 when read", where, severity="warning")
    if orientation not in (0, 1):
        message = f"EXIF orientation {orientation}; boxes must fit the upright image"
        yield Fault("image-exif-rotated", message, where, severity="warning")
    if frames > 1:
        yield Fault("image-animated", f"{frames} frames, only the first is read", where, severity="warning")


def _too_large(height: int, width: int) -> str:
    return f"{width} x {height} pixels; at most {MAX_PIXELS:,} are decoded at once"


def _thumbnail(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32] | None:
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).reshape(-1)
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return small / length if length > _SIDE else None  # an even surface resembles every other


def identical(facts: list[ImageFacts]) -> list[list[int]]:
    """Groups of images (positions) whose files have the same bytes."""
    groups: dict[str, list[int]] = {}
    for position, fact in enumerate(facts):
        if fact.digest:
            groups.setdefault(fact.digest, []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def nearly_identical(facts: list[ImageFacts]) -> Iterator[tuple[int, int, float]]:
    """Pairs of different files that look the same at 16 x 16, with their correlation; every pair is compared."""
    positions = [position for position, fact in enumerate(facts) if fact.thumbnail is not None]
    if len(positions) < 2 or len(positions) > MAX_NEAR:
        return
    table = np.stack([thumbnail for fact in facts if (thumbnail := fact.thumbnail) is not None])
    for start in range(0, len(table), _BLOCK):
        block = table[start : start + _BLOCK] @ table[start:].T
        rows, columns = np.nonzero(np.triu(block, k=1) > NEAR_CORRELATION)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            first, second = positions[start + row], positions[start + column]
            if facts[first].digest != facts[second].digest:
                yield first, second, float(block[row, column])
