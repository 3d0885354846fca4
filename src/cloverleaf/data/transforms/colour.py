"""Hue, saturation and value jitter by look-up tables on 8-bit RGB."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from cloverleaf.structures import Sample

Tables = npt.NDArray[np.uint8]


def draw_hsv(rng: np.random.Generator, gains: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """Factors of hue, saturation and value: 1 + u x gain with u uniform in [-1, 1]."""
    return hsv_factors(rng.uniform(-1, 1, 3), gains)


def hsv_factors(uniform: npt.NDArray[np.float64], gains: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """The factors that belong to three uniform draws (linear, as the published numbers have it)."""
    return 1 + uniform * np.asarray(gains)


def hsv_tables(factors: npt.NDArray[np.float64]) -> Tables:
    """``(3, 256)`` uint8 look-up tables in OpenCV's 8-bit HSV, hue in [0, 180), truncated as published."""
    levels = np.arange(256, dtype=np.float64)
    hue = (levels * factors[0]) % 180
    return np.stack([hue, *np.clip(levels * factors[1:, None], 0, 255)]).astype(np.uint8)


def jitter_hsv(sample: Sample, factors: npt.NDArray[np.float64]) -> Sample:
    """Apply the factors to the image; the objects stay."""
    hsv = cv2.cvtColor(sample.image, cv2.COLOR_RGB2HSV)
    tables = np.ascontiguousarray(hsv_tables(factors).T).reshape(1, 256, 3)
    cv2.LUT(hsv, tables, dst=hsv)
    return replace(sample, image=cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv))
