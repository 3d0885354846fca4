"""Individuals: a shape class with an appearance that stays the same wherever the individual is seen."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.data.procedural.shapes import SHAPES

Image = npt.NDArray[np.float32]
PATTERNS = ("plain", "stripes", "checker", "dots", "halves", "fade", "target", "quarters")
MARKS = ("none", "dot", "plus", "dash", "eyes")


@dataclass(frozen=True, slots=True)
class Individual:
    """The appearance signature of one identity.

    Attributes:
        identity: number from 0, also the identity in the annotations.
        label: index into ``SHAPES``.
        colours: (4, 3) float32 RGB in [0, 1]: fill, second fill, rim, mark.
        pattern, mark: names from ``PATTERNS`` and ``MARKS``.
        frequency: repeats of the pattern over the shape's longest side.
        angle: direction of the pattern in radians, in the shape's own frame.
        rim: width of the rim as a fraction of the longest side; 0 for none.
    """

    identity: int
    label: int
    colours: npt.NDArray[np.float32]
    pattern: str
    mark: str
    frequency: float
    angle: float
    rim: float


def make_individuals(seed: int, per_class: int) -> list[Individual]:
    """``per_class`` individuals of every class; identity = label * per_class + number within the class."""
    people = []
    for identity in range(per_class * len(SHAPES)):
        rng = np.random.default_rng(np.random.SeedSequence([seed, 1, identity]))
        people.append(
            Individual(
                identity=identity,
                label=identity // per_class,
                colours=_palette(rng),
                pattern=PATTERNS[rng.integers(len(PATTERNS))],
                mark=MARKS[rng.integers(len(MARKS))],
                frequency=float(rng.uniform(2.5, 6.0)),
                angle=float(rng.uniform(0, np.pi)),
                rim=float(rng.choice([0.0, 0.03, 0.06])),
            )
        )
    return people


def _palette(rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Four colours: a vivid, pale or dark fill, a second one related to it, and two contrasting ones."""
    hue = rng.random()
    saturation, value = [(0.85, 0.85), (0.45, 0.95), (0.7, 0.45), (0.08, 0.92), (0.1, 0.2)][
        rng.choice(5, p=[0.45, 0.2, 0.2, 0.08, 0.07])
    ]
    second_value = value - 0.3 if value > 0.6 else value + 0.35
    dark = value > 0.6
    hsv = np.array([
        [hue, saturation, value],
        [(hue + rng.choice([0.0, 0.08, 0.33, 0.5])) % 1, saturation * rng.uniform(0.6, 1), second_value],
        [hue, 0.5, 0.18 if dark else 0.95],
        [(hue + 0.5) % 1, rng.uniform(0.0, 0.9), 0.15 if dark else 0.95],
    ])  # fmt: skip
    hsv[:, 0] *= 360
    return cv2.cvtColor(hsv.astype(np.float32)[None], cv2.COLOR_HSV2RGB)[0].astype(np.float32)


def paint(individual: Individual, u: Image, v: Image) -> Image:
    """Fill colours at object coordinates ``u``, ``v`` (h, w), about [-0.5, 0.5] -> (h, w, 3) RGB, without the rim."""
    first, second, _, mark = individual.colours
    mix = _pattern(individual, u, v)[..., None]
    colour = first + mix * (second - first)
    inside = _mark(individual.mark, u, v)
    if inside is not None:
        colour[inside] = mark
    return colour.astype(np.float32)


def _pattern(individual: Individual, u: Image, v: Image) -> Image:
    """Share of the second colour, (h, w) in [0, 1]."""
    c, s = np.float32(np.cos(individual.angle)), np.float32(np.sin(individual.angle))
    p, q = c * u + s * v, c * v - s * u
    f = np.float32(individual.frequency)
    match individual.pattern:
        case "plain":
            mix = np.zeros_like(u)
        case "stripes":
            mix = (np.floor(2 * f * p) % 2).astype(np.float32)
        case "checker":
            mix = ((np.floor(f * p) + np.floor(f * q)) % 2).astype(np.float32)
        case "dots":
            mix = ((f * p % 1 - 0.5) ** 2 + (f * q % 1 - 0.5) ** 2 < 0.09).astype(np.float32)
        case "halves":
            mix = (p > 0).astype(np.float32)
        case "fade":
            mix = np.clip(p + 0.5, 0, 1)
        case "target":
            mix = (np.floor(2 * f * np.sqrt(p * p + q * q)) % 2).astype(np.float32)
        case _:
            mix = ((p > 0) != (q > 0)).astype(np.float32)
    return mix


def _mark(name: str, u: Image, v: Image) -> npt.NDArray[np.bool_] | None:
    """Where the inner mark is, or None."""
    match name:
        case "dot":
            return u * u + v * v < 0.012
        case "plus":
            return ((np.abs(u) < 0.035) & (np.abs(v) < 0.14)) | ((np.abs(v) < 0.035) & (np.abs(u) < 0.14))
        case "dash":
            return (np.abs(u) < 0.2) & (np.abs(v) < 0.05)
        case "eyes":
            return (np.abs(u) - 0.1) ** 2 + v * v < 0.004
        case _:
            return None
