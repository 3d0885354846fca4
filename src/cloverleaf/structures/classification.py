"""What a classifier says of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Classification:
    """The classes of one image.

    Attributes:
        probs: ``(K,)`` float32 in [0, 1], of sum 1.
        class_names: ``class_names[k]`` names class k.
        image_hw: size of the original image.
        source: where the image came from (a path, or "" for an array).
    """

    probs: npt.NDArray[np.float32]
    class_names: tuple[str, ...]
    image_hw: tuple[int, int]
    source: str = ""

    @property
    def label(self) -> int:
        """The likeliest class."""
        return int(self.probs.argmax())

    @property
    def name(self) -> str:
        """Its name."""
        return self.class_names[self.label]

    @property
    def score(self) -> float:
        """Its probability."""
        return float(self.probs[self.label])

    def top(self, most: int = 5) -> list[tuple[str, float]]:
        """Names and probabilities of the likeliest classes, at most so many, best first."""
        order = np.argsort(-self.probs, kind="stable")[:most].tolist()
        return [(self.class_names[k], float(self.probs[k])) for k in order]
