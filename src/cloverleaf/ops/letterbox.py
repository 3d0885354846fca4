"""The one letterbox of the library: fit an image into the network input with its aspect ratio kept, and the way back.

Training, evaluation and prediction all use it, so an object lands on the same pixels in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from torch import Tensor

Boxes = TypeVar("Boxes", npt.NDArray[Any], Tensor)
# (scale_x, scale_y, pad_left, pad_top): input = original * scale + pad.
LetterboxTransform = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class LetterboxPlan:
    """How an image is resized and padded; computed from sizes alone.

    Attributes:
        original_hw: size before.
        resized_hw: size after the resize, before padding.
        padding: (top, bottom, left, right) pixels added.
    """

    original_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    padding: tuple[int, int, int, int]

    @property
    def output_hw(self) -> tuple[int, int]:
        """Size of the result."""
        top, bottom, left, right = self.padding
        return self.resized_hw[0] + top + bottom, self.resized_hw[1] + left + right

    @property
    def transform(self) -> LetterboxTransform:
        """(scale_x, scale_y, pad_left, pad_top) of the pixels as they really are moved.

        The published code maps with the ratio before rounding and half the padding before rounding, which is up to
        half a pixel beside the image content; here the scale is resized / original per axis and the padding is the
        integer that was added (docs/fidelity.md, entry 29).
        """
        (height, width), (new_height, new_width) = self.original_hw, self.resized_hw
        return new_width / width, new_height / height, float(self.padding[2]), float(self.padding[0])


def letterbox_shape(
    image_hw: tuple[int, int],
    size_hw: int | tuple[int, int],
    *,
    auto: bool = False,
    scale_fill: bool = False,
    scale_up: bool = True,
    stride: int = 32,
) -> LetterboxPlan:
    """Plan a letterbox without touching pixels; arguments as in `letterbox`."""
    height, width = image_hw
    new_height, new_width = (size_hw, size_hw) if isinstance(size_hw, int) else size_hw
    if scale_fill:
        return LetterboxPlan(image_hw, (new_height, new_width), (0, 0, 0, 0))
    ratio = min(new_height / height, new_width / width)
    if not scale_up:
        ratio = min(ratio, 1.0)
    resized = max(1, round(height * ratio)), max(1, round(width * ratio))
    rows, columns = new_height - resized[0], new_width - resized[1]
    if auto:
        rows, columns = rows % stride, columns % stride
    # The odd pixel goes below and to the right.
    top, left = round(rows / 2 - 0.1), round(columns / 2 - 0.1)
    return LetterboxPlan(image_hw, resized, (top, rows - top, left, columns - left))


def letterbox(
    image: npt.NDArray[np.uint8],
    size_hw: int | tuple[int, int],
    *,
    auto: bool = False,
    scale_fill: bool = False,
    scale_up: bool = True,
    stride: int = 32,
    colour: int | Sequence[int] = 114,
) -> tuple[npt.NDArray[np.uint8], LetterboxTransform]:
    """Resize (bilinear) and pad an image to a size, keeping its aspect ratio.

    Args:
        image: ``(H, W, 3)`` uint8.
        size_hw: wanted size, or the side of a square.
        auto: pad only up to the next multiple of ``stride`` instead of to the whole size.
        scale_fill: stretch to the size, without padding.
        scale_up: whether a smaller image may be enlarged.
        stride: used by ``auto``.
        colour: padding value, grey level or one value per channel.

    Returns:
        the image, and (scale_x, scale_y, pad_left, pad_top): input = original * scale + pad, per axis.
    """
    plan = letterbox_shape(
        (image.shape[0], image.shape[1]), size_hw, auto=auto, scale_fill=scale_fill, scale_up=scale_up, stride=stride
    )
    if plan.resized_hw != plan.original_hw:
        image = cv2.resize(image, plan.resized_hw[::-1], interpolation=cv2.INTER_LINEAR)
    if any(plan.padding):
        value = [colour] * 3 if isinstance(colour, int) else list(colour)
        image = cv2.copyMakeBorder(image, *plan.padding, cv2.BORDER_CONSTANT, value=value)
    return image, plan.transform


def unletterbox_boxes(boxes_xyxy: Boxes, letterbox: LetterboxTransform, original_hw: tuple[int, int]) -> Boxes:
    """Map boxes from network-input pixels back to the original image and clip them to it.

    Args:
        boxes_xyxy: ``(..., 4)`` array or tensor, input pixels; it is not changed.
        letterbox: (scale_x, scale_y, pad_left, pad_top) of the image.
        original_hw: size of the original image.
    """
    scale_x, scale_y, left, top = letterbox
    height, width = original_hw
    boxes: Any = boxes_xyxy.clone() if isinstance(boxes_xyxy, Tensor) else boxes_xyxy.copy()
    boxes[..., 0::2] = ((boxes[..., 0::2] - left) / scale_x).clip(0, width)
    boxes[..., 1::2] = ((boxes[..., 1::2] - top) / scale_y).clip(0, height)
    return boxes
