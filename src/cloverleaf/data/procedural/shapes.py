"""The classes of the embedded dataset: outlines as unit polygons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ring = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ShapeClass:
    """One class of shapes.

    Attributes:
        name: class name.
        rings: closed rings, each (k, 2) float32 (x right, y down), filled by the even-odd rule; together they are
            centred on the origin and their longest side is 1.
        min_size: longest side in pixels below which the class can no longer be told from its neighbours.
    """

    name: str
    rings: tuple[Ring, ...]
    min_size: float = 6.0


def _shape(name: str, *rings: npt.ArrayLike, min_size: float = 6.0) -> ShapeClass:
    """Centre the rings' common bounding box on the origin and scale its longest side to 1."""
    arrays = [np.asarray(ring, dtype=np.float64) for ring in rings]
    low, high = np.concatenate(arrays).min(0), np.concatenate(arrays).max(0)
    scaled = tuple(((ring - (low + high) / 2) / (high - low).max()).astype(np.float32) for ring in arrays)
    return ShapeClass(name, scaled, min_size)


def _polar(radii: npt.ArrayLike, turn: float = -0.25) -> npt.NDArray[np.float64]:
    """Points at equal angles with the given radii; ``turn`` (of a circle) is the angle of the first, -0.25 is up."""
    radius = np.asarray(radii, dtype=np.float64)
    angle = 2 * np.pi * (np.arange(len(radius)) / len(radius) + turn)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _arc(
    radius: float, start: float, stop: float, *, centre: tuple[float, float] = (0, 0), n: int = 48
) -> npt.NDArray[np.float64]:
    """``n`` points of an arc from ``start`` to ``stop`` degrees (0 is right, 90 is down)."""
    angle = np.radians(np.linspace(start, stop, n))
    return np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], axis=1)


def _heart() -> npt.NDArray[np.float64]:
    """The usual parametric heart curve, point down."""
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    return np.stack(
        [16 * np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))], axis=1
    )


def _crescent() -> npt.NDArray[np.float64]:
    """A disc less a disc of the same size, moved aside by 0.95 of the radius: two arcs that meet at the tips."""
    shift = 0.95
    tip = float(np.degrees(np.arccos(shift / 2)))
    outer = _arc(1.0, tip, 360 - tip, n=64)
    inner = _arc(1.0, 180 + tip, 180 - tip, centre=(shift, 0), n=40)
    return np.concatenate([outer, inner[1:-1]])


def _drop() -> npt.NDArray[np.float64]:
    """A round belly with one long point."""
    return np.concatenate([_arc(1.0, -30, 210, n=48), [[0.0, -2.2]]])


def _cross() -> list[tuple[float, float]]:
    a, b = 1.0, 0.33
    return [(-b, -a), (b, -a), (b, -b), (a, -b), (a, b), (b, b), (b, a), (-b, a), (-b, b), (-a, b), (-a, -b), (-b, -b)]


_CIRCLE = _polar(np.ones(72))
_TEETH = np.tile([1.0, 1.0, 1.0, 0.72, 0.72, 0.72], 8)

SHAPES: tuple[ShapeClass, ...] = (
    _shape("disc", _CIRCLE),
    _shape("ring", _CIRCLE, 0.52 * _CIRCLE, min_size=7),
    _shape("triangle", _polar([1, 1, 1])),
    _shape("square", [(-1, -1), (1, -1), (1, 1), (-1, 1)]),
    _shape("bar", [(-3.4, -1), (3.4, -1), (3.4, 1), (-3.4, 1)], min_size=8),
    _shape("hexagon", _polar(np.ones(6)), min_size=10),
    _shape("star", _polar([1, 0.42] * 5), min_size=8),
    _shape("cross", _cross(), min_size=7),
    _shape("heart", _heart(), min_size=8),
    _shape("crescent", _crescent(), min_size=8),
    _shape("arrow", [(-2, -0.45), (0.1, -0.45), (0.1, -1.3), (2, 0), (0.1, 1.3), (0.1, 0.45), (-2, 0.45)], min_size=8),
    _shape("gear", _polar(_TEETH), 0.3 * _CIRCLE, min_size=12),
    _shape("half-disc", _arc(1.0, 0, 180), min_size=7),
    _shape("drop", _drop(), min_size=8),
    _shape(
        "bolt", [(0.25, -2), (-1.1, 0.3), (-0.15, 0.3), (-0.55, 2), (1.1, -0.45), (0.1, -0.45), (0.75, -2)], min_size=8
    ),
    _shape("bracket", [(-1, -1), (-0.35, -1), (-0.35, 0.35), (1, 0.35), (1, 1), (-1, 1)], min_size=7),
)
