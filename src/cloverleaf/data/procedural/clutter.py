"""Clutter: things in the scene that belong to no class."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.data.procedural.texture import hsv, value_noise

Image = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
_SHIFT = 4  # cv2 draws with 1/16 pixel


def add_clutter(rng: np.random.Generator, image: Image, amount: int) -> None:
    """Draw ``amount`` random distractors (strokes, blobs, noise patches, scribbled text) onto ``image`` in place."""
    makers = (_strokes, _blob, _noise_patch, _text, _dust)
    size_hw = image.shape[0], image.shape[1]
    for _ in range(amount):
        alpha, colour = makers[rng.choice(len(makers), p=[0.3, 0.2, 0.15, 0.2, 0.15])](rng, size_hw)
        _blend(image, alpha, colour)


def wires(rng: np.random.Generator, size_hw: tuple[int, int], count: int) -> tuple[Image, Image]:
    """Thin curves that will cross in front of the objects: coverage (H, W) in [0, 1] and their colour (3,)."""
    alpha = np.zeros(size_hw, np.uint8)
    for _ in range(count):
        ends = rng.uniform(-0.1, 1.1, (2, 2))
        _curve(alpha, rng, ends[0], ends[1], bend=0.3, thickness=int(rng.integers(1, 3)))
    return alpha.astype(np.float32) / np.float32(255), _colour(rng)


def _blend(image: Image, alpha: Image, colour: Image) -> None:
    """``image = image * (1 - alpha) + colour * alpha`` in place; ``colour`` is (3,) or (H, W, 3)."""
    rows, columns = np.flatnonzero(alpha.any(1)), np.flatnonzero(alpha.any(0))
    if not len(rows):
        return
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    weight = alpha[window][..., None]
    image[window] *= 1 - weight
    image[window] += weight * (colour[window] if colour.ndim == 3 else colour)


def _colour(rng: np.random.Generator) -> Image:
    return hsv(rng.random(), rng.uniform(0, 0.8), rng.uniform(0.1, 0.95))


def _curve(
    alpha: npt.NDArray[np.uint8], rng: np.random.Generator, start: Points, stop: Points, *, bend: float, thickness: int
) -> None:
    """A cubic curve from ``start`` to ``stop`` (fractions of the size) with two random control points."""
    scale = np.array(alpha.shape[::-1])
    controls = np.stack([start, start + (stop - start) / 3, start + (stop - start) * 2 / 3, stop])
    controls[1:3] += rng.normal(0, bend, (2, 2)) * np.linalg.norm(stop - start)
    t = np.linspace(0, 1, 24)[:, None]
    weights = np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
    points = np.round(weights @ controls * scale * (1 << _SHIFT)).astype(np.int32)
    cv2.polylines(alpha, [points], False, 255, thickness, cv2.LINE_AA, _SHIFT)


def _strokes(rng: np.random.Generator, size_hw: tuple[int, int]) -> tuple[Image, Image]:
    """A bundle of one to four loose curves."""
    alpha = np.zeros(size_hw, np.uint8)
    start = rng.random(2)
    reach = rng.uniform(0.1, 0.5)
    for _ in range(rng.integers(1, 5)):
        _curve(alpha, rng, start, start + rng.normal(0, reach, 2), bend=0.4, thickness=int(rng.integers(1, 4)))
    return alpha.astype(np.float32) * np.float32(rng.uniform(0.4, 1) / 255), _colour(rng)


def _outline(rng: np.random.Generator, size_hw: tuple[int, int], radius: float) -> npt.NDArray[np.uint8]:
    """Coverage of a lobed, irregular closed curve; lobed enough to be none of the classes."""
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radii = 1 + sum(rng.uniform(0.12, 0.3) * np.cos(k * angle + rng.uniform(0, 6.28)) for k in (2, 3, 5))
    points = np.stack([np.cos(angle) * radii * rng.uniform(0.5, 1), np.sin(angle) * radii], axis=1) * radius
    points += rng.random(2) * np.array(size_hw[::-1])
    mask = np.zeros(size_hw, np.uint8)
    cv2.fillPoly(mask, [np.round(points * (1 << _SHIFT)).astype(np.int32)], 255, cv2.LINE_AA, _SHIFT)
    return mask


def _blob(rng: np.random.Generator, size_hw: tuple[int, int]) -> tuple[Image, Image]:
    """A soft-edged stain."""
    radius = rng.uniform(0.02, 0.16) * max(size_hw)
    alpha = cv2.GaussianBlur(_outline(rng, size_hw, radius), (0, 0), max(0.8, radius * rng.uniform(0.05, 0.3)))
    return alpha.astype(np.float32) * np.float32(rng.uniform(0.3, 0.9) / 255), _colour(rng)


def _noise_patch(rng: np.random.Generator, size_hw: tuple[int, int]) -> tuple[Image, Image]:
    """An irregular patch of coarse two-colour noise."""
    alpha = cv2.GaussianBlur(_outline(rng, size_hw, rng.uniform(0.06, 0.2) * max(size_hw)), (0, 0), 2)
    mix = value_noise(rng, size_hw, rng.uniform(30, 90), octaves=1)[..., None]
    first, second = _colour(rng), _colour(rng)
    return alpha.astype(np.float32) * np.float32(rng.uniform(0.4, 0.8) / 255), first + mix * (second - first)


def _text(rng: np.random.Generator, size_hw: tuple[int, int]) -> tuple[Image, Image]:
    """Lines of scribble that look like writing: three to ten little zigzags in a row."""
    alpha = np.zeros(size_hw, np.uint8)
    height = rng.uniform(5, 16)
    angle, origin = rng.normal(0, 0.4), rng.random(2) * np.array(size_hw[::-1])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    for glyph in range(rng.integers(3, 11)):
        points = rng.random((rng.integers(3, 6), 2)) * [0.6, 1] + [0.8 * glyph, 0]
        points = np.round((points * height @ turn + origin) * (1 << _SHIFT)).astype(np.int32)
        cv2.polylines(alpha, [points], False, 255, 1, cv2.LINE_AA, _SHIFT)
    return alpha.astype(np.float32) / np.float32(255), _colour(rng)


def _dust(rng: np.random.Generator, size_hw: tuple[int, int]) -> tuple[Image, Image]:
    """A cloud of specks, one to three pixels each."""
    alpha = np.zeros(size_hw, np.uint8)
    centre = rng.random(2)
    for point in centre + rng.normal(0, rng.uniform(0.03, 0.15), (rng.integers(8, 40), 2)):
        at = np.round(point * np.array(size_hw[::-1]) * 16).astype(int).tolist()
        cv2.circle(alpha, at, int(rng.uniform(6, 18)), 255, -1, cv2.LINE_AA, _SHIFT)
    return alpha.astype(np.float32) * np.float32(rng.uniform(0.5, 1) / 255), _colour(rng)
