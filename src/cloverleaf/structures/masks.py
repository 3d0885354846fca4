"""The mask of one object, kept no larger than the object."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Mask:
    """Pixels of one object in an image.

    Attributes:
        left, top: where the window lies, in pixels of the image.
        pixels: ``(h, w)`` bool window, inside the image; outside of it there is nothing. Either side may be 0.
    """

    left: int
    top: int
    pixels: npt.NDArray[np.bool_]

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.pixels))

    def full(self, image_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """``(H, W)`` bool over the whole image."""
        canvas = np.zeros(image_hw, np.bool_)
        height, width = self.pixels.shape
        canvas[self.top : self.top + height, self.left : self.left + width] = self.pixels
        return canvas
