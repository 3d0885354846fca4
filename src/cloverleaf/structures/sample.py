"""One image with its objects, as the transforms see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# One object's outline: zero or more closed rings, each (k, 2) float32 (x, y) pixels of the sample's image.
Polygons = tuple[npt.NDArray[np.float32], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """An image and its objects; every transform returns a new one.

    Attributes:
        image: ``(H, W, 3)`` uint8 RGB.
        boxes_xyxy: ``(n, 4)`` float32 pixels of ``image``.
        labels: ``(n,)`` int64.
        polygons: per object its rings (an empty tuple where an object has no outline); None when no object has one.
        identities: ``(n,)`` int64, -1 for none; None when the dataset has none.
        crowd: ``(n,)`` bool; crowd regions never train.
        tags: ``(T,)`` float32 image-level labels, NaN where not known, or None.
        image_id: id in the dataset.
        original_hw: size of the stored image.
        letterbox: (scale_x, scale_y, pad_left, pad_top) from original to ``image``; None once it is not such a map.
        covered: rings around what comes from stored images, the rest being padding; None where nobody asked.
    """

    image: npt.NDArray[np.uint8]
    boxes_xyxy: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    polygons: tuple[Polygons, ...] | None = None
    identities: npt.NDArray[np.int64] | None = None
    crowd: npt.NDArray[np.bool_] | None = None
    tags: npt.NDArray[np.float32] | None = None
    image_id: int = -1
    original_hw: tuple[int, int] = (0, 0)
    letterbox: tuple[float, float, float, float] | None = (1.0, 1.0, 0.0, 0.0)
    covered: Polygons | None = None

    @property
    def size_hw(self) -> tuple[int, int]:
        """Size of ``image``."""
        return self.image.shape[0], self.image.shape[1]

    def __len__(self) -> int:
        return len(self.labels)
