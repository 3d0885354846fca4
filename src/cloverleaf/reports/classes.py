"""Pictures of whole images with their classes: training batches, and what a classifier says beside what is true."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from cloverleaf.drawing.boxes import Pixels
from cloverleaf.drawing.palette import INK, PAPER, rgb
from cloverleaf.drawing.sheet import grid, paper, save_picture
from cloverleaf.drawing.text import FONT, writable

_WRONG, _BAR = (196, 48, 43), (190, 220, 200)
_LINE, _FRAME = 20, 3
_LEAST_SHARE = 0.005  # classes with less of an image are not named


@dataclass(frozen=True, slots=True)
class ClassComparison:
    """One image with its class and what it was called.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        truth: name of its class.
        called: names and probabilities of the likeliest classes, best first.
        title: such as the file name.
    """

    image: Pixels
    truth: str
    called: Sequence[tuple[str, float]]
    title: str = ""


def draw_class_batch(
    images: Tensor, class_probs: Tensor, names: Sequence[str], path: Path, *, most: int = 16, tile: int = 200
) -> None:
    """A grid of training images as the network sees them, augmented and mixed, with the classes that it shall learn.

    Args:
        images: (B, 3, H, W) float in [0, 1].
        class_probs: (B, K) soft classes.
        names: of the classes.
        path: the PNG or JPEG to write.
        most: images drawn at most.
        tile: side of one image in the grid, pixels.
    """
    pixels = images[:most].mul(255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    floor = float(class_probs.min()) + _LEAST_SHARE  # what label smoothing gives to every class
    tiles = []
    for image, shares in zip(pixels, class_probs[:most].cpu().numpy(), strict=True):
        order = np.argsort(-shares, kind="stable")[:2].tolist()
        lines = [f"{shares[k]:.2f} {_name(names[k])}" for k in order if shares[k] > floor or k == order[0]]
        tiles.append(_tile(image, [*lines, ""][:2], tile))
    save_picture(path, grid(tiles, math.ceil(math.sqrt(len(tiles)))))


def draw_classes_beside_truth(items: Sequence[ClassComparison], path: Path, *, tile: int = 200) -> None:
    """Each image with its class and the likeliest classes; those that were called wrongly have a red frame.

    Args:
        items: the images; none is allowed and draws an empty sheet.
        path: the PNG or JPEG to write.
        tile: side of one image in the sheet, pixels.
    """
    tiles = []
    for item in items:
        best, *others = item.called
        wrong = best[0] != item.truth
        lines = [f"is {_name(item.truth)}", f"called {_name(best[0])} {best[1]:.2f}"]
        lines += [f"then {_name(name)} {score:.2f}" for name, score in others[:1]]
        tiles.append(_tile(item.image, lines, tile, frame=_WRONG if wrong else None))
    save_picture(path, grid(tiles, 6))


def draw_classified(
    image: Pixels, called: Sequence[tuple[str, float]], *, inside: bool = False, least_side: int = 320
) -> Pixels:
    """The image and a strip that names the likeliest classes and draws their probabilities as bars.

    Args:
        image: (H, W, 3) uint8 RGB; a smaller one is enlarged, so that the strip can be read.
        called: names and probabilities, best first.
        inside: the strip lies over the lower end of the image, whose size stays; otherwise it is added below.
        least_side: width of the result at least, pixels.
    """
    if image.shape[1] < least_side and not inside:
        zoom = least_side / image.shape[1]
        image = cv2.resize(image, (least_side, max(round(image.shape[0] * zoom), 1)), interpolation=cv2.INTER_CUBIC)
    width = image.shape[1]
    scale = max(0.5, width / 1400)
    line = round(46 * scale)
    strip = paper(line * len(called) + line // 2, width)
    for k, (name, score) in enumerate(called):
        base = line * (k + 1)
        bar = round((width - 16) * score)
        cv2.rectangle(strip, (8, base - round(0.62 * line)), (8 + bar, base + round(0.18 * line)), _BAR, cv2.FILLED)
        text = f"{score:.3f}  {_name(name)}"
        cv2.putText(strip, text, (14, base), FONT, scale, rgb(INK), max(1, round(scale * 1.6)), cv2.LINE_AA)
    if not inside:
        return np.vstack([image, strip])
    frame, strip = image.copy(), strip[: image.shape[0]]
    frame[len(frame) - len(strip) :] = strip
    return frame


def _name(name: str, longest: int = 18) -> str:
    text = writable(name) or "(class)"
    return text if len(text) <= longest else text[: longest - 2] + ".."


def _tile(image: Pixels, lines: Sequence[str], side: int, *, frame: tuple[int, int, int] | None = None) -> Pixels:
    """The image in a square, lines of text below it, all in a frame."""
    height, width = image.shape[:2]
    zoom = side / max(height, width)
    size = max(round(width * zoom), 1), max(round(height * zoom), 1)
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_NEAREST)
    canvas = paper(side + _LINE * len(lines) + 8, side)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = scaled
    for k, text in enumerate(lines):
        place = (2, side + _LINE * (k + 1) - 4)
        cv2.putText(canvas, text, place, FONT, 0.42, frame or rgb(INK), 1, cv2.LINE_AA)
    colour = frame or rgb(PAPER)
    return cv2.copyMakeBorder(canvas, _FRAME, _FRAME, _FRAME, _FRAME, cv2.BORDER_CONSTANT, value=colour)
