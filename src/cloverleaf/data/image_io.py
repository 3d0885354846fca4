"""Image files to RGB arrays, whatever they are, or an error that names the file.

Ordinary 8-bit JPEG and PNG go straight to OpenCV; the rare kinds (transparency, CMYK, 16-bit, TIFF, GIF, ...) go
through Pillow. Conventions: EXIF orientation is applied; transparent pixels are laid over grey 114 (the padding of the
letterbox); 16-bit values are taken as the full range and scaled by 1/257; of an animation the first frame counts.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from cloverleaf.data.image_header import ImageHeader, is_complete, parse_header
from cloverleaf.errors import ImageError

Pixels = npt.NDArray[np.uint8]
Source = str | os.PathLike[str] | bytes

MAX_PIXELS = 89_478_485
"""Largest image that is decoded: 256 MiB of RGB (also Pillow's own limit). Larger baseline JPEGs can still be read
at a reduced scale."""

_BACKGROUND = 114
_ORIENTATION_TAG = 0x0112
_REDUCED = {
    1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8,
}  # fmt: skip
_HEADER_BYTES = 1 << 17
# What Pillow and its plugins raise on damaged files.
_DAMAGE = (OSError, ValueError, SyntaxError, EOFError, RuntimeError, TypeError, LookupError, struct.error)
_MAGIC = (b"\xff\xd8\xff", b"\x89PN")  # JPEG, PNG


def read_image(source: Source) -> Pixels:
    """Read an image as ``(H, W, 3)`` uint8 RGB, EXIF orientation applied.

    Args:
        source: a path, or the content of a file.

    Raises:
        ImageError: missing, empty, truncated, corrupt, not an image, or more than `MAX_PIXELS` pixels.
    """
    name, data = _content(source)
    header = parse_header(data)
    return _decode(name, data, header, factor=1)


def read_resized(source: Source, long_side: int, *, area: bool = False) -> tuple[Pixels, tuple[int, int]]:
    """Read an image and scale it so that its longer side is ``long_side`` (see `resized_hw`).

    A JPEG of at least twice that size is decoded at 1/2, 1/4 or 1/8 scale at once, which is several times faster,
    unless ``area`` asks for the full decoding. A baseline JPEG beyond `MAX_PIXELS` is always decoded at reduced scale.

    Args:
        source: a path, or the content of a file.
        long_side: pixels of the longer side of the result.
        area: shrink by area averaging (evaluation) instead of bilinear sampling (training).

    Returns:
        the ``(h, w, 3)`` uint8 RGB image and the original (H, W).

    Raises:
        ImageError: as `read_image`.
    """
    name, data = _content(source)
    header = parse_header(data)
    factor = 1
    if header is not None and header.plain and header.kind == "jpeg":
        height, width = header.stored_hw
        too_large = height * width > MAX_PIXELS
        if not header.progressive if too_large else not area:
            factor = max((f for f in _REDUCED if max(height, width) >= f * long_side), default=1)
    image = _decode(name, data, header, factor)
    size_hw = header.size_hw if header is not None and factor > 1 else (image.shape[0], image.shape[1])
    target = resized_hw(size_hw, long_side)
    if image.shape[:2] == target:
        return image, size_hw
    if size_hw[0] % factor or size_hw[1] % factor:
        # The last row or column of a reduced image stands for fewer than `factor` pixels: use the true scale.
        x, y = factor * target[1] / size_hw[1], factor * target[0] / size_hw[0]
        matrix = np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2]])
        return cv2.warpAffine(image, matrix, target[::-1], borderMode=cv2.BORDER_REPLICATE), size_hw
    return resize(image, target, area=area), size_hw


def resized_hw(size_hw: tuple[int, int], long_side: int) -> tuple[int, int]:
    """Size of an image whose longer side is scaled to ``long_side``; truncated as published, but at least 1 pixel."""
    ratio = long_side / max(size_hw)
    return max(1, int(size_hw[0] * ratio)), max(1, int(size_hw[1] * ratio))


def resize(image: Pixels, size_hw: tuple[int, int], *, area: bool) -> Pixels:
    """Resize; area averaging where ``area`` and the image shrinks, else bilinear. Returns the same array if it fits."""
    if image.shape[:2] == size_hw:
        return image
    shrinks = size_hw[0] <= image.shape[0] and size_hw[1] <= image.shape[1]
    return cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA if area and shrinks else cv2.INTER_LINEAR)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(H, W) of an image file after EXIF orientation; reads the header only.

    Raises:
        ImageError: missing, empty, or no image format that is known.
    """
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(_HEADER_BYTES)
            header = parse_header(data)
            if header is None and data[:3] in _MAGIC:
                data += file.read()
                header = parse_header(data)
    except OSError as error:
        raise _unreadable(name, error) from error
    if not data:
        raise ImageError(f"{name} is empty", "it has 0 bytes", "copy the file again or remove it")
    if header is not None:
        return header.size_hw
    with _pillow(name, path) as opened:
        try:
            turned = opened.getexif().get(_ORIENTATION_TAG, 1) >= 5
        except _DAMAGE as error:
            raise _damaged(name, error) from error
        return (opened.width, opened.height) if turned else (opened.height, opened.width)


def to_rgb_uint8(array: npt.NDArray[Any]) -> Pixels:
    """Bring an array given by a user into the form of the library.

    Args:
        array: ``(H, W)`` or ``(H, W, 1)`` grey, ``(H, W, 3)`` RGB or ``(H, W, 4)`` RGBA; uint8, uint16, bool, or
            floating in [0, 1].

    Returns:
        ``(H, W, 3)`` uint8 RGB; the same memory where nothing had to change.

    Raises:
        ImageError: another shape, kind or range.
    """
    array = np.asarray(array)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(
            f"an array of shape {array.shape} is not an image", "wanted (H, W), (H, W, 3) RGB or (H, W, 4) RGBA",
            "put the channels last and pass one image at a time",
        )  # fmt: skip
    array = _to_uint8(array)
    if array.shape[2] == 4:
        alpha = array[..., 3:].astype(np.uint16)
        array = ((array[..., :3] * alpha + _BACKGROUND * (255 - alpha) + 127) // 255).astype(np.uint8)
    elif array.shape[2] == 1:
        array = np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array)


def _to_uint8(array: npt.NDArray[Any]) -> Pixels:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):
            raise ImageError(
                "a floating-point image is out of range",
                f"values must lie in [0, 1], found [{array.min()}, {array.max()}]", "scale it, or convert it to uint8",
            )  # fmt: skip
        return (array * 255 + 0.5).astype(np.uint8)
    raise ImageError(f"images of type {array.dtype} are not supported", "wanted uint8, uint16, bool or floating", "")


def _content(source: Source) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        name, data = "the given image", source
    else:
        name = os.fspath(source)
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise _unreadable(name, error) from error
    if not data:
        raise ImageError(f"{name} is empty", "it has 0 bytes", "copy the file again or remove it")
    return name, data


def _unreadable(name: str, error: OSError) -> ImageError:
    return ImageError(f"cannot read {name}", error.strerror or str(error), "check the path and the permissions")


def _check_pixels(name: str, size_hw: tuple[int, int], factor: int = 1) -> None:
    if size_hw[0] * size_hw[1] > MAX_PIXELS * factor * factor:
        raise ImageError(
            f"{name} is too large",
            f"{size_hw[1]} x {size_hw[0]} pixels, and at most {MAX_PIXELS:,} are decoded at once",
            "scale it down or cut it into tiles",
        )


def _decode(name: str, data: bytes, header: ImageHeader | None, factor: int) -> Pixels:
    if header is None:
        if data[:3] in _MAGIC:
            raise ImageError(f"{name} is truncated", "its header is not whole", "copy it again")
        return _read_with_pillow(name, data)
    _check_pixels(name, header.size_hw, factor)
    if not is_complete(data, header):
        raise ImageError(f"{name} is truncated", f"the end of the {header.kind.upper()} is missing", "copy it again")
    deep = header.kind == "png" and header.bits == 16
    if not header.plain and not deep:
        return _read_with_pillow(name, data)
    flags = cv2.IMREAD_UNCHANGED if deep else _REDUCED[factor]
    if header.kind == "png":
        data = _without_profile(data)
    image = _cv2_decode(name, data, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if image.ndim == 3:
        cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB, dst=image)
    return _orient(to_rgb_uint8(image), header.orientation)


def _without_profile(data: bytes) -> bytes:
    """A PNG without its colour profile: decoding does not use it, and libpng prints warnings about many of them."""
    at = 8
    while (kind := data[at + 4 : at + 8]) not in (b"IDAT", b"IEND", b""):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"iCCP":
            return data[:at] + data[end:]
        at = end
    return data


def _cv2_decode(name: str, data: bytes, flags: int) -> npt.NDArray[Any]:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"cannot decode {name}", str(error.err), "the file is damaged: copy it again") from error
    if image is None:
        raise ImageError(f"cannot decode {name}", "its pixel data are damaged", "copy it again or remove it")
    return image


def _orient(image: Pixels, orientation: int) -> Pixels:
    """Undo EXIF orientation 1 to 8: first transpose (5 to 8), then flip."""
    if orientation >= 5:
        image = cv2.transpose(image)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)


def _pillow(name: str, source: Any) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(source)
        except UnidentifiedImageError as error:
            raise ImageError(f"{name} is not an image", "no known image format", "remove it from the data") from error
        except Image.DecompressionBombError as error:
            raise ImageError(f"{name} is too large", str(error), "scale it down or cut it into tiles") from error
        except _DAMAGE as error:
            raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> ImageError:
    return ImageError(f"cannot decode {name}", str(error), "the file is damaged: copy it again")


def _read_with_pillow(name: str, data: bytes) -> Pixels:
    with _pillow(name, io.BytesIO(data)) as opened:
        _check_pixels(name, (opened.height, opened.width))
        try:
            opened.load()
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("I;16", "I;16L", "I;16B", "I;16N"):
                return to_rgb_uint8(np.asarray(image).astype(np.uint16))
            if image.mode == "I":
                return to_rgb_uint8(_sixteen_bit(name, np.asarray(image)))
            if image.mode == "F":
                return to_rgb_uint8(np.asarray(image))
            transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
            return to_rgb_uint8(np.asarray(image.convert("RGBA" if transparent else "RGB")))
        except _DAMAGE as error:
            raise _damaged(name, error) from error


def _sixteen_bit(name: str, values: npt.NDArray[Any]) -> npt.NDArray[np.uint16]:
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(f"cannot use {name}", "it has 32-bit values beyond 16 bits", "convert it to 8 or 16 bits")
    return values.astype(np.uint16)
