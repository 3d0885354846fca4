"""A scene while it is being built: the picture so far, and who owns each pixel."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.data.procedural.individuals import Individual
from cloverleaf.data.procedural.sprite import Sprite

MIN_PIXELS = 14

Window = tuple[slice, slice]
Corner = tuple[int, int]


class Stage:
    """The scene while it is being built: the picture so far and which object owns each pixel."""

    def __init__(self, image: npt.NDArray[np.float32]) -> None:
        self.image = image
        self.owner: npt.NDArray[np.int32] = np.full(image.shape[:2], -1, np.int32)
        self.cast: list[tuple[Individual, int]] = []  # individual, whole area in pixels
        self.visible = np.zeros(0, np.int64)

    def fits(self, sprite: Sprite, at: Corner, min_share: float) -> bool:
        """Would it, and everything behind it, stay visible enough with its top left corner at (x, y) = ``at``?"""
        target, source = overlap(sprite, at, self.owner.shape)
        solid = sprite.solid[source]
        seen = int(solid.sum())
        if seen < max(MIN_PIXELS, 0.5 * sprite.solid.sum()):
            return False
        hidden = self.owner[target][solid]
        left = self.visible - np.bincount(hidden[hidden >= 0], minlength=len(self.cast))
        whole = np.array([area for _, area in self.cast], np.int64)
        touched = left < self.visible
        return not bool(np.any(touched & ((left < MIN_PIXELS) | (left < min_share * whole))))

    def put(self, individual: Individual, sprite: Sprite, at: Corner, shadow: float) -> None:
        """Draw it in front of everything so far; ``shadow`` is how dark its drop shadow is."""
        if shadow:
            self._drop_shadow(sprite, at, shadow)
        target, source = overlap(sprite, at, self.owner.shape)
        weight = sprite.alpha[source][..., None]
        self.image[target] = self.image[target] * (1 - weight) + sprite.colour[source] * weight
        self.owner[target][sprite.solid[source]] = len(self.cast)
        self.cast.append((individual, int(sprite.solid.sum())))
        self.count()

    def cover(self, alpha: npt.NDArray[np.float32], colour: npt.NDArray[np.float32]) -> None:
        """Lay something that is no object over everything: coverage (H, W) and colour (3,) or (H, W, 3)."""
        self.image *= 1 - alpha[..., None]
        self.image += alpha[..., None] * colour
        self.owner[alpha >= 0.5] = -1
        self.count()

    def count(self) -> None:
        """Recount the visible pixels of every object."""
        self.visible = np.bincount(self.owner[self.owner >= 0], minlength=len(self.cast))

    def _drop_shadow(self, sprite: Sprite, at: Corner, strength: float) -> None:
        side = max(sprite.alpha.shape)
        pad = 2 + side // 12
        soft = cv2.GaussianBlur(
            cv2.copyMakeBorder(sprite.alpha, pad, pad, pad, pad, cv2.BORDER_CONSTANT), (0, 0), 0.6 + side / 40
        )
        moved = Sprite(soft, sprite.colour, soft > 0)
        step = 1 + side // 24
        target, source = overlap(moved, (at[0] - pad + step, at[1] - pad + step), self.owner.shape)
        self.image[target] *= 1 - np.float32(strength) * soft[source][..., None]


def overlap(sprite: Sprite, at: Corner, size_hw: tuple[int, ...]) -> tuple[Window, Window]:
    """Windows into the picture and into the sprite of the part that lies inside the picture (may be empty)."""
    (x, y), (h, w) = at, sprite.alpha.shape
    top, left = max(y, 0), max(x, 0)
    bottom, right = max(min(y + h, size_hw[0]), top), max(min(x + w, size_hw[1]), left)
    return (slice(top, bottom), slice(left, right)), (slice(top - y, bottom - y), slice(left - x, right - x))
