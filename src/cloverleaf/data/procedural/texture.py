"""Backgrounds: seeded textures in float32 RGB."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
BACKGROUNDS = ("noise", "stripes", "checker", "gradient", "bricks", "speckle", "marble")


def value_noise(rng: np.random.Generator, size_hw: tuple[int, int], cells: float, octaves: int = 3) -> Image:
    """Smooth noise in about [0, 1]: random lattices of ``cells``, 2 x ``cells``, ... a side, enlarged and summed."""
    height, width = size_hw
    total = np.zeros(size_hw, np.float32)
    weight, norm = 1.0, 0.0
    for octave in range(octaves):
        n = max(2, min(int(cells * 2**octave), max(size_hw)))
        lattice = rng.random((n, n), dtype=np.float32)
        total += np.float32(weight) * cv2.resize(lattice, (width, height), interpolation=cv2.INTER_CUBIC)
        norm += weight
        weight *= 0.5
    return total / np.float32(norm)


def hsv(hue: float, saturation: float, value: float) -> npt.NDArray[np.float32]:
    """One RGB colour (3,) from hue, saturation and value, all in [0, 1]."""
    pixel = np.array([[[hue % 1 * 360, np.clip(saturation, 0, 1), np.clip(value, 0, 1)]]], np.float32)
    return cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)


def background(rng: np.random.Generator, kind: str, size_hw: tuple[int, int]) -> Image:
    """A background of one of ``BACKGROUNDS`` -> (H, W, 3) RGB, about [0, 1]; its contrast is low."""
    height, width = size_hw
    hue, saturation, value = rng.random(), rng.uniform(0.05, 0.6), rng.uniform(0.25, 0.85)
    first = hsv(hue, saturation, value)
    step = rng.uniform(0.1, 0.28) * (1 if value < 0.55 else -1)
    second = hsv(hue + rng.normal(0, 0.06), saturation + rng.normal(0, 0.15), value + step)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(max(size_hw))
    p = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    q = np.float32(np.cos(angle)) * y - np.float32(np.sin(angle)) * x
    mix = _mix(rng, kind, p, q, size_hw)[..., None]
    image = first + mix * (second - first)
    fine = value_noise(rng, size_hw, rng.uniform(40, 120), octaves=2)[..., None] - np.float32(0.5)
    image += np.float32(rng.uniform(0.03, 0.12)) * fine
    return image.astype(np.float32)


def _mix(rng: np.random.Generator, kind: str, p: Image, q: Image, size_hw: tuple[int, int]) -> Image:
    """Share of the second colour, (H, W); ``p`` and ``q`` are rotated coordinates, 1 = the longest side."""
    frequency = np.float32(rng.uniform(4, 14))
    match kind:
        case "noise":
            return value_noise(rng, size_hw, rng.uniform(3, 10), octaves=4)
        case "stripes":
            wave = np.sin(2 * np.pi * frequency * (p + np.float32(rng.uniform(0, 0.05)) * np.sin(8 * q)))
            return np.clip(0.5 + np.float32(rng.uniform(0.5, 3)) * wave, 0, 1).astype(np.float32)
        case "checker":
            return ((np.floor(frequency * p) + np.floor(frequency * q)) % 2).astype(np.float32)
        case "gradient":
            return (p - p.min()) / (p.max() - p.min()) * np.float32(1.6)
        case "bricks":
            row = np.floor(frequency * 1.6 * q)
            along = (frequency * 0.7 * p + 0.5 * (row % 2)) % 1
            mortar = (along < 0.05) | (frequency * 1.6 * q % 1 < 0.1)
            tone = rng.random(997, dtype=np.float32)
            brick = (row * 31 + np.floor(frequency * 0.7 * p + 0.5 * (row % 2)) * 17).astype(np.int64) % 997
            return np.where(mortar, np.float32(1.2), np.float32(0.5) * tone[brick])
        case "speckle":
            coarse = value_noise(rng, size_hw, rng.uniform(30, 60), octaves=1)
            return (coarse > rng.uniform(0.55, 0.75)).astype(np.float32)
        case _:
            warp = value_noise(rng, size_hw, rng.uniform(3, 6), octaves=4)
            return np.float32(0.5) + np.float32(0.5) * np.sin(frequency * (2 * p + 2 * warp))
