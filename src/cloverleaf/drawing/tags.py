"""Image-level labels written beside a photograph."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.drawing.palette import INK, rgb
from cloverleaf.drawing.sheet import paper
from cloverleaf.drawing.text import FONT, shortened, writable

Pixels = npt.NDArray[np.uint8]
_CHIP = (205, 226, 240)


def draw_tags(image: Pixels, tags: Sequence[tuple[str, float]], *, inside: bool = False) -> Pixels:
    """The image and a strip with the names and probabilities of its tags.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        tags: names and probabilities; without any the strip says so.
        inside: the strip lies over the lower end of the image, whose size stays; otherwise it is added below.
    """
    strip = _strip([f"{_name(name)} {score:.2f}" for name, score in tags] or ["no tag"], image.shape[1])
    if not inside:
        return np.vstack([image, strip])
    frame, strip = image.copy(), strip[: image.shape[0]]
    frame[len(frame) - len(strip) :] = strip
    return frame


def _strip(texts: Sequence[str], width: int) -> Pixels:
    """Texts on coloured grounds, from left to right in as many lines as it takes; long ones are cut."""
    scale = max(0.4, width / 1600)
    line, gap, thick = round(40 * scale), round(14 * scale), max(1, round(scale * 1.5))
    places, x, row = [], gap, 0
    for text in texts:
        across = cv2.getTextSize(text, FONT, scale, thick)[0][0] + 2 * gap
        if x + across > width and x > gap:
            x, row = gap, row + 1
        places.append((x, row, across))
        x += across + gap
    strip = paper(line * (row + 1) + gap, width)
    for text, (left, number, across) in zip(texts, places, strict=True):
        top = gap // 2 + number * line
        corner = left + across, top + round(0.86 * line)
        cv2.rectangle(strip, (left, top + round(0.08 * line)), corner, _CHIP, cv2.FILLED)
        at = left + gap, top + round(0.64 * line)
        cv2.putText(strip, text, at, FONT, scale, rgb(INK), thick, cv2.LINE_AA)
    return strip


def _name(name: str) -> str:
    return shortened(writable(name), 24).replace("…", "..") or "(tag)"
