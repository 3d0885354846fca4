"""Masks of objects and classes of pixels, laid over photographs."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.drawing.palette import class_colours
from cloverleaf.drawing.sheet import legend
from cloverleaf.structures.masks import Mask

Pixels = npt.NDArray[np.uint8]
_SHADE = 0.42  # how strongly a mask covers the picture
_RIM = 0.9  # and its rim


def shade_masks(image: Pixels, masks: Sequence[Mask], colours: npt.NDArray[np.uint8]) -> Pixels:
    """A copy of ``image`` with translucent masks and their rims; later ones lie on top.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        masks: in pixels of ``image``.
        colours: ``(n, 3)`` uint8 RGB.
    """
    canvas = image.copy()
    rim = max(1, round(float(np.sqrt(image.shape[0] * image.shape[1])) / 500))
    for mask, colour in zip(masks, colours.astype(np.float32), strict=True):
        height, width = mask.pixels.shape
        window = canvas[mask.top : mask.top + height, mask.left : mask.left + width]
        strength = _strength(mask.pixels, rim)[..., None]
        window[:] = np.round(window * (1 - strength) + colour * strength)
    return canvas


def _strength(pixels: npt.NDArray[np.bool_], rim: int) -> npt.NDArray[np.float32]:
    """How much of the colour each pixel of a window takes: more at the rim, unless there would be nothing else."""
    if not pixels.size:
        return pixels.astype(np.float32)
    inner = cv2.erode(np.pad(pixels.astype(np.uint8), rim), np.ones((3, 3), np.uint8), iterations=rim)
    core = inner[rim : rim + pixels.shape[0], rim : rim + pixels.shape[1]].astype(bool)
    if core.sum() * 4 < pixels.sum():  # a small or thin object would be all rim
        return np.float32(0.65) * pixels
    return np.where(core, np.float32(_SHADE), np.float32(_RIM)) * pixels


def scaled(masks: Sequence[Mask], from_hw: tuple[int, int], to_hw: tuple[int, int]) -> list[Mask]:
    """Masks of an image of one size in pixels of the same image in another size."""
    if from_hw == to_hw:
        return list(masks)
    x, y = to_hw[1] / from_hw[1], to_hw[0] / from_hw[0]
    return [_scaled(mask, x, y, to_hw) for mask in masks]


def _scaled(mask: Mask, x: float, y: float, to_hw: tuple[int, int]) -> Mask:
    height, width = mask.pixels.shape
    left, top = min(round(mask.left * x), to_hw[1]), min(round(mask.top * y), to_hw[0])
    right, bottom = min(round((mask.left + width) * x), to_hw[1]), min(round((mask.top + height) * y), to_hw[0])
    if right <= left or bottom <= top:
        return Mask(left, top, np.zeros((0, 0), np.bool_))
    method = cv2.INTER_AREA if x < 1 else cv2.INTER_LINEAR
    part = cv2.resize(mask.pixels.astype(np.float32), (right - left, bottom - top), interpolation=method)
    return Mask(left, top, part >= 0.5)


def mask_colours(labels: npt.NDArray[np.integer], num_classes: int) -> npt.NDArray[np.uint8]:
    """``(n, 3)`` colours: the classes', or where there is but one class a different one for neighbours in the list."""
    if num_classes > 1:
        return class_colours(num_classes)[labels]
    return class_colours(12)[np.arange(len(labels)) % 12]


def draw_label_map(
    image: Pixels, labels: npt.NDArray[np.unsignedinteger], names: Sequence[str], *, with_legend: bool = True
) -> Pixels:
    """A copy of ``image`` with the classes of its pixels in translucent colours, borders between them, and a legend.

    Class 0 is the background and stays as it is; class k has the colour of label k - 1, as in pictures with boxes.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        labels: ``(H, W)`` classes; 255 (beyond the names) is grey.
        names: class names, the background's first.
        with_legend: add a strip below with the colours of the classes that are there.
    """
    table = np.zeros((max(len(names), int(labels.max(initial=0)) + 1), 3), np.uint8)
    table[:] = 128
    table[1 : len(names)] = class_colours(max(len(names) - 1, 0))
    edges = np.zeros(labels.shape, bool)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    shown = (labels > 0) | edges
    strength = (np.where(edges, np.float32(_RIM), np.float32(0.5)) * shown)[..., None]
    colours = table[np.where(edges & (labels == 0), _beside(labels), labels)]
    canvas = np.round(image * (1 - strength) + colours * strength).astype(np.uint8)
    there = [k - 1 for k in np.unique(labels).tolist() if 0 < k < len(names)]
    if not with_legend or not there:
        return canvas
    return np.vstack([canvas, legend(names[1:], canvas.shape[1], there)])


def _beside(labels: npt.NDArray[np.unsignedinteger]) -> npt.NDArray[np.unsignedinteger]:
    """The class of the pixel to the left or above, so that a border has the object's colour from either side."""
    left, above = np.zeros_like(labels), np.zeros_like(labels)
    left[:, 1:], above[1:] = labels[:, :-1], labels[:-1]
    return np.where(left > 0, left, above)
