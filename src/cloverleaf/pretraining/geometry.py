"""Cells of an image: how many, and how many of them stay visible."""

from __future__ import annotations

from dataclasses import dataclass

from cloverleaf.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Cells:
    """A square grid of cells.

    Attributes:
        side: cells along each side of the image.
        patch_size: pixels along each side of a cell.
        visible: visible cells of each image.
    """

    side: int
    patch_size: int
    visible: int


def lay_out(image_size: int, patch_size: int, ratio: float, *, stride: int, images_per_step: int) -> Cells:
    """The cells of an image, round(f * f * (1 - ratio)) of them visible (arXiv 2301.03580).

    Args:
        image_size: side in pixels.
        patch_size: of a cell in pixels; 0 takes ``stride``.
        ratio: share of the cells that are hidden.
        stride: the backbone's coarsest.
        images_per_step: the smallest batch of one process.

    Raises:
        ConfigError: sizes that do not divide each other, or nothing left to see or to guess.
    """
    patch = patch_size or stride
    if patch % stride:
        raise ConfigError(
            f"--patch-size {patch} does not fit a backbone of stride {stride}",
            "a position of its coarsest map covers that many pixels, and must be visible or hidden as a whole",
            f"use a multiple of {stride}",
        )
    if image_size % patch:
        near = max(round(image_size / patch), 2) * patch
        raise ConfigError(
            f"--patch-size {patch} does not divide --image-size {image_size}",
            "the image is cut into whole patches",
            f"use e.g. --image-size {near}",
        )
    side = image_size // patch
    visible = round(side * side * (1 - ratio))
    if not 0 < visible < side * side:
        raise ConfigError(
            f"--mask-ratio {ratio} leaves {visible} of {side * side} patches visible",
            "there must be something to see and something to guess",
            "use larger images, smaller patches or another ratio",
        )
    if visible * images_per_step * (patch // stride) ** 2 < 2:
        raise ConfigError(
            f"one visible patch of {patch} px and one image a step",
            "BatchNorm has a single value per channel to look at",
            "use a larger batch, larger images or a lower --mask-ratio",
        )
    return Cells(side, patch, visible)
