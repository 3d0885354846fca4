"""One object, drawn anti-aliased into a small patch."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.data.procedural.individuals import Individual, paint
from cloverleaf.data.procedural.shapes import SHAPES

_SHIFT = 8  # cv2 draws with 1/256 pixel


@dataclass(frozen=True, slots=True)
class Pose:
    """How an individual stands in a picture.

    Attributes:
        size: longest side of the object's upright bounding box, pixels.
        turn: rotation in radians.
        squeeze: foreshortening of the second axis, (0, 1].
        light: direction and strength of the shading, (2,) per longest side.
    """

    size: float
    turn: float
    squeeze: float
    light: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Sprite:
    """A drawn object.

    Attributes:
        alpha: (h, w) float32 coverage in [0, 1].
        colour: (h, w, 3) float32 RGB.
        solid: (h, w) bool, the pixels that belong to the object: at least half covered.
    """

    alpha: npt.NDArray[np.float32]
    colour: npt.NDArray[np.float32]
    solid: npt.NDArray[np.bool_]


def draw_sprite(individual: Individual, pose: Pose, offset: npt.NDArray[np.float64]) -> Sprite:
    """Draw one object, supersampled two to four times; ``offset`` (2,) in [0, 1) is its sub-pixel position."""
    c, s = np.cos(pose.turn), np.sin(pose.turn)
    turn = np.array([[c, -s * pose.squeeze], [s, c * pose.squeeze]])
    outline = np.concatenate(SHAPES[individual.label].rings).astype(np.float64) @ turn.T
    forward = turn * (pose.size / np.ptp(outline, axis=0).max())  # unit (u, v) -> pixels (x, y)
    rings = [ring.astype(np.float64) @ forward.T for ring in SHAPES[individual.label].rings]
    low = np.floor(min(ring.min() for ring in rings)) - 2  # one bound for both axes keeps the centre in the middle
    side = int(-2 * low) + 1
    centre = -low + offset
    factor = 4 if pose.size < 64 else 2

    mask = np.zeros((side * factor, side * factor), np.uint8)
    # pixel k of the fine grid covers [k, k + 1): its centre lies at k + 0.5
    fine = [np.round(((ring + centre) * factor - 0.5) * (1 << _SHIFT)).astype(np.int32) for ring in rings]
    cv2.fillPoly(mask, fine, 255, cv2.LINE_8, _SHIFT)

    along = (np.arange(side * factor, dtype=np.float32) + np.float32(0.5)) / np.float32(factor)
    x, y = along[None, :] - np.float32(centre[0]), along[:, None] - np.float32(centre[1])
    inverse = np.linalg.inv(forward).astype(np.float32)
    colour = paint(individual, inverse[0, 0] * x + inverse[0, 1] * y, inverse[1, 0] * x + inverse[1, 1] * y)
    thickness = round(2 * individual.rim * pose.size * factor)
    if thickness:
        rim = [float(value) for value in individual.colours[2]]
        cv2.polylines(colour, fine, True, rim, thickness, cv2.LINE_8, _SHIFT)
    shade = 1 + (np.float32(pose.light[0]) * x + np.float32(pose.light[1]) * y) / np.float32(pose.size)
    colour *= shade[..., None]

    size = (side, side)
    alpha = cv2.resize(mask, size, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    colour = cv2.resize(colour, size, interpolation=cv2.INTER_AREA)
    return _trim(alpha, colour)


def _trim(alpha: npt.NDArray[np.float32], colour: npt.NDArray[np.float32]) -> Sprite:
    """Cut the empty border off."""
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return Sprite(alpha[window], colour[window], alpha[window] >= 0.5)
