"""How individuals move through a clip: they wander, meet, hide and leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline

Points = npt.NDArray[np.float64]
_LEG = 14  # frames from one knot of a path to the next
_EVENT = 3  # knots from one event to the next


@dataclass(frozen=True, slots=True)
class Walk:
    """One individual's way through a clip of T frames.

    Attributes:
        centres: ``(T, 2)`` x, y in pixels; may lie outside the picture.
        sizes: ``(T,)`` longest side in pixels.
        turns: ``(T,)`` radians.
        squeeze: foreshortening, (0, 1].
    """

    centres: Points
    sizes: Points
    turns: Points
    squeeze: float


def draw_walks(rng: np.random.Generator, count: int, frames: int, side: int, pillar: tuple[float, float]) -> list[Walk]:
    """Ways of ``count`` individuals that cross, hide and come back.

    Every third knot of the paths something happens to each: two meet in one point, one turns round behind the pillar,
    one leaves the picture and enters it elsewhere about a second later, or nothing.

    Args:
        rng: draws everything.
        count: individuals.
        frames: length of the clip, T.
        side: of the square picture in pixels.
        pillar: x at which the pillar begins and ends, pixels.
    """
    knots = max(2, int(np.ceil((frames - 1) / _LEG)) + 1)
    sizes = side * rng.uniform(0.13, 0.2, count)
    places = _wander(rng, count, knots, side, sizes)
    for knot in range(1, knots - 1, _EVENT):
        _happen(rng, places, knot, side, sizes, pillar)
    time = np.arange(frames) / _LEG
    centres = CubicSpline(np.arange(knots), places, axis=1)(time)
    return [
        Walk(
            centres=centres[k],
            sizes=sizes[k] * (1 + rng.uniform(0.02, 0.1) * np.sin(time * rng.uniform(0.5, 1.5) + rng.uniform(0, 6.28))),
            turns=rng.uniform(0, 2 * np.pi) + rng.normal(0, 0.35) * time,
            squeeze=float(rng.uniform(0.8, 1)),
        )
        for k in range(count)
    ]


def _wander(rng: np.random.Generator, count: int, knots: int, side: int, sizes: Points) -> Points:
    """``(count, knots, 2)``: from anywhere, in steps of up to a third of the side, reflected at the edges."""
    angles = rng.uniform(0, 2 * np.pi, (count, knots))
    reach = rng.uniform(0.15, 0.33, (count, knots)) * side
    steps = np.stack([np.cos(angles), np.sin(angles)], axis=2) * reach[..., None]
    steps[:, 0] = rng.uniform(0, side, (count, 2))
    low = 0.6 * sizes[:, None, None]
    width = side - 2 * low
    folded = np.mod(np.cumsum(steps, axis=1) - low, 2 * width)
    return low + np.where(folded > width, 2 * width - folded, folded)


def _happen(
    rng: np.random.Generator, places: Points, knot: int, side: int, sizes: Points, pillar: tuple[float, float]
) -> None:
    """What happens at ``knot``: the individuals in random order, pairs first; changes ``places``."""
    order = rng.permutation(len(places)).tolist()
    last = places.shape[1] - 1
    while len(order) > 1:
        event = rng.choice(["meet", "meet", "leave", "hide", "none"])
        first = order.pop()
        if event == "meet":
            second = order.pop()
            places[[first, second], knot] = places[[first, second], knot].mean(0)
        elif event == "leave":
            exits = _outside(rng, side, sizes[first], places[first, knot - 1])
            places[first, knot : min(knot + 2, last + 1)] = exits[: last + 1 - knot]
        elif event == "hide":
            places[first, knot, 0] = np.mean(pillar)
            if knot + 1 <= last:
                places[first, knot + 1] = places[first, knot] + [0, rng.normal(0, 0.05 * side)]


def _outside(rng: np.random.Generator, side: int, size: float, start: Points) -> Points:
    """``(2, 2)``: a place beyond the edge nearest to ``start``, and one beyond any edge from which to come back."""
    distance = 0.75 * size + 4
    along = rng.uniform(0.2, 0.8, 2) * side
    edges = [
        lambda a: (-distance, a),
        lambda a: (side + distance, a),
        lambda a: (a, -distance),
        lambda a: (a, side + distance),
    ]
    nearest = int(np.argmin([start[0], side - start[0], start[1], side - start[1]]))
    return np.array([edges[nearest](start[1 - nearest // 2]), edges[int(rng.integers(4))](along[1])])
