"""The loss of masked-image pre-training: squared error on normalised hidden patches (arXiv 2301.03580)."""

from __future__ import annotations

import torch
from torch import Tensor

VARIANCE_EPS = 1e-6  # added to the variance of an image patch before the root


def patch_errors(images: Tensor, reconstructions: Tensor, patch_size: int) -> Tensor:
    """Mean squared error of each patch, the image patch normalised by its own mean and unbiased deviation.

    Args:
        images: (B, C, H, W), sides multiples of ``patch_size``.
        reconstructions: (B, C, H, W), in the units of normalised patches.
        patch_size: side of a patch in pixels.

    Returns:
        (B, 1, H / patch, W / patch), at least float32.
    """
    target, _, _ = normalised_patches(images, patch_size)
    found = _patches(reconstructions, patch_size)
    return (found - target).square().mean((1, 3, 5)).unsqueeze(1)


def masked_patch_loss(errors: Tensor, visible: Tensor) -> Tensor:
    """Mean of ``errors`` over the masked patches.

    Args:
        errors: (B, 1, f, g) as `patch_errors` gives them.
        visible: (B, 1, f, g) bool.
    """
    hidden = (~visible).to(errors.dtype)
    return (errors * hidden).sum() / (hidden.sum() + 1e-8)


def fill_in(images: Tensor, reconstructions: Tensor, visible: Tensor, patch_size: int) -> Tensor:
    """``images`` with their masked patches replaced by the reconstruction, in the units of ``images``.

    Each reconstructed patch gets mean and deviation of the true one, which the loss leaves undetermined.

    Args:
        images, reconstructions, patch_size: as in `patch_errors`.
        visible: (B, 1, f, g) bool.
    """
    _, mean, deviation = normalised_patches(images, patch_size)
    filled = (_patches(reconstructions, patch_size) * deviation + mean).reshape(images.shape)
    seen = visible.repeat_interleave(patch_size, 2).repeat_interleave(patch_size, 3)
    return torch.where(seen, images, filled)


def normalised_patches(images: Tensor, patch_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Patches (B, C, f, p, g, p), each of mean 0 and deviation 1, and their (B, 1, f, 1, g, 1) means and deviations."""
    patches = _patches(images, patch_size)
    variance, mean = torch.var_mean(patches, (1, 3, 5), correction=1, keepdim=True)
    deviation = (variance + VARIANCE_EPS).sqrt()
    return (patches - mean) / deviation, mean, deviation


def _patches(images: Tensor, patch_size: int) -> Tensor:
    batch, channels, height, width = images.shape
    values = images.to(torch.promote_types(images.dtype, torch.float32))
    return values.reshape(batch, channels, height // patch_size, patch_size, width // patch_size, patch_size)
