"""What the first bytes of an image file say: kind, size, orientation, and whether it is of the ordinary sort.

Only JPEG and PNG are read here, in a few microseconds, because almost every dataset consists of them; everything else
is left to Pillow.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_START_OF_FRAME = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Facts of a JPEG or PNG.

    Attributes:
        kind: "jpeg" or "png".
        stored_hw: size of the stored pixels, before the orientation is applied.
        orientation: EXIF orientation, 1 to 8.
        bits: bits per channel.
        plain: 8-bit grey or RGB without transparency: OpenCV decodes it as it is.
        progressive: a progressive JPEG, whose decoder holds all coefficients in memory.
        pixels_at: where the pixel data start in the file.
    """

    kind: str
    stored_hw: tuple[int, int]
    orientation: int
    bits: int
    plain: bool
    progressive: bool
    pixels_at: int

    @property
    def size_hw(self) -> tuple[int, int]:
        """Size after the orientation is applied."""
        return self.stored_hw[::-1] if self.orientation >= 5 else self.stored_hw


def parse_header(data: bytes) -> ImageHeader | None:
    """Read the header of a JPEG or PNG from its first bytes; None if it is something else or ``data`` ends too soon."""
    try:
        if data[:3] == b"\xff\xd8\xff":
            return _jpeg(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return _png(data)
    except (struct.error, IndexError):
        return None
    return None


def is_complete(data: bytes, header: ImageHeader) -> bool:
    """Whether the end marker of the file is there; decoders fill the rest of a truncated picture with grey or black."""
    if header.kind == "jpeg":
        # Inside the entropy-coded data 0xFF is always followed by 0x00 or a restart marker.
        return data.rfind(b"\xff\xd9", header.pixels_at) >= 0
    return data.rfind(b"IEND", header.pixels_at) >= 0


def _jpeg(data: bytes) -> ImageHeader | None:
    position, orientation = 2, 1
    frame: tuple[int, int, int, int, int] | None = None
    while True:
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        position += 2
        if marker in _STANDALONE:
            continue
        length = struct.unpack_from(">H", data, position)[0]
        if marker in _START_OF_FRAME:
            bits, height, width, components = struct.unpack_from(">BHHB", data, position + 2)
            frame = marker, bits, height, width, components
        elif marker == 0xE1 and data[position + 2 : position + 8] == b"Exif\x00\x00":
            orientation = _exif_orientation(data[position + 8 : position + length])
        elif marker == 0xDA:
            break
        position += length
    if frame is None:
        return None
    marker, bits, height, width, components = frame
    plain = bits == 8 and components in (1, 3) and height > 0 and width > 0
    return ImageHeader("jpeg", (height, width), orientation, bits, plain, marker != 0xC0 and marker != 0xC1, position)


def _exif_orientation(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        at = struct.unpack_from(order + "I", tiff, 4)[0]
        for entry in range(struct.unpack_from(order + "H", tiff, at)[0]):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, at + 2 + 12 * entry)
            if tag == 0x0112 and kind == 3:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1


def _png(data: bytes) -> ImageHeader | None:
    width, height, bits, colour = struct.unpack_from(">IIBB", data, 16)
    position, orientation, transparent = 8, 1, colour in (4, 6)
    while True:
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"IDAT":
            break
        if name == b"IEND":
            return None
        if name == b"eXIf":
            orientation = _exif_orientation(data[position + 8 : position + 8 + length])
        transparent |= name == b"tRNS"
        position += 12 + length
    plain = bits == 8 and colour in (0, 2, 3) and not transparent and height > 0 and width > 0
    return ImageHeader("png", (height, width), orientation, bits, plain, False, position)
