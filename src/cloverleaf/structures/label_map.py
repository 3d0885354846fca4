"""A class for every pixel of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class LabelMap:
    """What a semantic segmentation model says of one image.

    Attributes:
        labels: ``(H, W)`` uint8 (uint16 beyond 256 classes), the class of every pixel of the original image.
        class_names: ``class_names[k]`` names class k; of our own models 0 is the background.
        source: where the image came from (a path, or "" for an array).
    """

    labels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    class_names: tuple[str, ...]
    source: str = ""

    @property
    def image_hw(self) -> tuple[int, int]:
        """Size of the original image."""
        return int(self.labels.shape[0]), int(self.labels.shape[1])

    @property
    def shares(self) -> dict[str, float]:
        """Share of the pixels of every class that is there, by name, in the order of the classes."""
        counts = np.bincount(self.labels.reshape(-1), minlength=len(self.class_names))
        total = max(int(counts.sum()), 1)
        return {name: int(n) / total for name, n in zip(self.class_names, counts, strict=True) if n}
