"""Which sides of a network input a model can take."""

from __future__ import annotations

from cloverleaf.errors import ConfigError

DEFAULT_IMAGE_SIZE = 640


def fit_image_size(size: int, stride: int) -> int:
    """The smallest multiple of ``stride`` that is not below ``size``."""
    return max(-(-size // stride), 1) * stride


def trained_image_size(size: int | None, stride: int) -> int:
    """Long side of the network input that a model was trained with, 640 where unknown, fitted to its stride."""
    return fit_image_size(size or DEFAULT_IMAGE_SIZE, stride)


def check_image_size(size: int, stride: int, name: str) -> int:
    """``size`` as it is.

    Raises:
        ConfigError: it is no multiple of ``stride``; names the two nearest that are.
    """
    if size < 1 or size % stride:
        low, high = size // stride * stride, fit_image_size(size, stride)
        raise ConfigError(
            f"image size {size} does not fit {name}",
            f"its coarsest feature map has stride {stride}",
            f"use {low} or {high}" if low > 0 else f"use {stride} or {2 * stride}",
        )
    return size
