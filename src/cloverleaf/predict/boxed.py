"""Pictures letterboxed into the network's input, those of one size run together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cloverleaf.ops.letterbox import LetterboxTransform, letterbox
from cloverleaf.predict.detect import to_input
from cloverleaf.predict.engine import Engine
from cloverleaf.predict.sources import Picture

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Boxed:
    """A picture in the form of the network's input, and where it lies there.

    Attributes:
        picture: as it was read.
        image: ``(h, w, 3)`` uint8 RGB, letterboxed.
        transform: from pixels of the picture to those of the input.
    """

    picture: Picture
    image: npt.NDArray[np.uint8]
    transform: LetterboxTransform

    @property
    def whole(self) -> LetterboxTransform:
        """From pixels of the original, of which the picture may be a reduced form, to those of the input."""
        scale_x, scale_y, left, top = self.transform
        (height, width), (original_height, original_width) = self.picture.pixels.shape[:2], self.picture.original_hw
        return scale_x * width / original_width, scale_y * height / original_height, left, top


def in_batches(
    engine: Engine,
    pictures: Sequence[Picture],
    infer: Callable[[Tensor, list[int], list[Boxed]], list[Result]],
    *,
    image_size: int,
    batch_size: int,
) -> list[Result]:
    """Letterbox, and run pictures of one input size together; results in the order of the pictures.

    Args:
        engine: whose device and sizes are used.
        pictures: images in memory.
        infer: from pixels ``(B, 3, H, W)`` in [0, 1] on the device, the places of the pictures, and the pictures to a
            result for each.
        image_size: long side of the network input.
        batch_size: pictures per pass at most.
    """
    info, side = engine.info, (image_size, image_size)
    boxed = [
        Boxed(picture, *letterbox(picture.pixels, side, auto=not info.fixed, stride=info.stride))
        for picture in pictures
    ]
    by_shape: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, item in enumerate(boxed):
        by_shape[item.image.shape].append(i)
    found: dict[int, Result] = {}
    with torch.inference_mode():
        for members in by_shape.values():
            for start in range(0, len(members), batch_size):
                chosen = members[start : start + batch_size]
                images = torch.from_numpy(np.stack([boxed[i].image for i in chosen])).permute(0, 3, 1, 2)
                results = infer(to_input(images, engine.device), chosen, [boxed[i] for i in chosen])
                found.update(zip(chosen, results, strict=True))
    return [found[i] for i in range(len(pictures))]
