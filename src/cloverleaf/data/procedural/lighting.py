"""Light and camera: what happens to a scene between the world and the file."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.data.procedural.texture import value_noise

Image = npt.NDArray[np.float32]


def expose(rng: np.random.Generator, image: Image) -> tuple[npt.NDArray[np.uint8], set[str]]:
    """Light a scene and photograph it.

    Args:
        rng: draws which effects apply and how strongly.
        image: (H, W, 3) float32 RGB, about [0, 1]; used up.

    Returns:
        The picture, (H, W, 3) uint8 RGB, and the tags of the effects that can be seen in it.
    """
    tags: set[str] = set()
    light = _light(rng, (image.shape[0], image.shape[1]), tags)
    exposure = _exposure(rng, tags)
    cast = _cast(rng, tags)
    image *= light[..., None] * (exposure * cast)
    if rng.random() < 0.15:
        tags.add("blur")
        image = _blur(rng, image)
    np.clip(image, 0, 1, out=image)
    grain = 0.006
    if rng.random() < 0.15:
        tags.add("grain")
        grain = rng.uniform(0.025, 0.05)
    image += np.float32(grain) * rng.standard_normal((*image.shape[:2], 1), dtype=np.float32)
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8), tags


def _light(rng: np.random.Generator, size_hw: tuple[int, int], tags: set[str]) -> Image:
    """Illumination (H, W) about 1: a slope, sometimes a vignette, sometimes a cast shadow."""
    height, width = size_hw
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3)
    light = 1 + np.float32(slope * np.cos(angle)) * x + np.float32(slope * np.sin(angle)) * y
    if rng.random() < 0.2:
        tags.add("vignette")
        light *= 1 - np.float32(rng.uniform(0.25, 0.4)) * (x * x + y * y)
    if rng.random() < 0.25:
        tags.add("shadow")
        light *= _shadow(rng, x, y)
    return light


def _shadow(rng: np.random.Generator, x: Image, y: Image) -> Image:
    """Attenuation by something outside the picture: a wavy half-plane or a band, with a soft edge."""
    angle = rng.uniform(0, 2 * np.pi)
    distance = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y - np.float32(rng.uniform(-0.4, 0.4))
    distance += np.float32(0.4) * (value_noise(rng, (x.shape[0], x.shape[1]), 4, octaves=2) - np.float32(0.5))
    if rng.random() < 0.5:
        distance = np.float32(rng.uniform(0.15, 0.4)) - np.abs(distance)
    edge = np.clip(distance * np.float32(rng.uniform(6, 25)) + 0.5, 0, 1)
    return 1 - np.float32(rng.uniform(0.3, 0.6)) * edge


def _exposure(rng: np.random.Generator, tags: set[str]) -> np.float32:
    draw = rng.random()
    if draw < 0.15:
        tags.add("dim")
        return np.float32(rng.uniform(0.4, 0.6))
    if draw < 0.3:
        tags.add("bright")
        return np.float32(rng.uniform(1.25, 1.5))
    return np.float32(rng.uniform(0.85, 1.1))


def _cast(rng: np.random.Generator, tags: set[str]) -> npt.NDArray[np.float32]:
    draw, strength = rng.random(), rng.uniform(0.12, 0.25)
    if draw < 0.15:
        tags.add("warm")
        return np.array([1 + strength, 1, 1 - strength], np.float32)
    if draw < 0.3:
        tags.add("cool")
        return np.array([1 - strength, 1, 1 + strength], np.float32)
    return np.ones(3, np.float32)


def _blur(rng: np.random.Generator, image: Image) -> Image:
    """Slightly out of focus, or moved by two or three pixels."""
    if rng.random() < 0.5:
        return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.7, 1.2)).astype(np.float32)
    kernel = np.zeros((5, 5), np.float32)
    kernel[2, 1:4] = 1
    if rng.random() < 0.5:
        kernel = kernel.T
    return cv2.filter2D(image, -1, kernel / kernel.sum()).astype(np.float32)
