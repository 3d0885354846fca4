"""The image from the output of RevCol's stem: exact where it is wide enough, else the smoothest of those that fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cloverleaf.layers.convnext import ChannelNorm

_RANK = 1e-6  # smallest singular value that counts, over the largest
_STEPS, _CLOSE = 400, 1e-10


@dataclass(frozen=True, slots=True)
class StemInverse:
    """An image that leads to the given output of the stem.

    Attributes:
        image: (B, 3, H, W).
        kept: numbers of each patch that the stem's output determines.
        of: numbers of a patch.
    """

    image: Tensor
    kept: int
    of: int

    @property
    def exact(self) -> bool:
        """Whether no other image leads there."""
        return self.kept == self.of


@torch.no_grad()
def invert_stem(stem: nn.Module, output: Tensor) -> StemInverse:
    """The image that led to an output of the stem: a convolution of patches, with a norm unless it is folded.

    BatchNorm is a known affine function in evaluation mode. Layer normalisation takes the mean of the channels from
    every position, for good; their deviation stays in what its epsilon leaves of the unit variance,
    var(y) = var / (var + eps), which float64 resolves and float32 does not. So W p of every patch p of 48 numbers is
    known up to the mean: with at least 49 channels p follows, with fewer only a projection of it, and what is missing
    is chosen such that neighbouring pixels of the whole image differ least (docs/fidelity.md, entry 158).

    Args:
        stem: of `RevCol`, in evaluation mode and float64.
        output: (B, C, h, w) float64.

    Raises:
        ValueError: it is not float64.
    """
    if output.dtype != torch.float64:
        raise ValueError(f"the stem is inverted in float64, not {output.dtype}")
    conv = stem[0] if isinstance(stem, nn.Sequential) else stem
    norm = stem[1] if isinstance(stem, nn.Sequential) else nn.Identity()
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    values, matrix = _before_norm(norm, output) - conv.bias[:, None, None], conv.weight.flatten(1)
    if isinstance(norm, ChannelNorm):  # the mean of the channels is unknown: compare what is left without it
        values, matrix = values - values.mean(1, keepdim=True), matrix - matrix.mean(0)
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=True)
    kept = int((sizes > _RANK * sizes[0]).sum())
    known = torch.einsum("bchw,cr,r,rp->bphw", values, left[:, :kept], 1 / sizes[:kept], right[:kept])
    size = conv.kernel_size[0]
    if kept < matrix.shape[1]:
        known = _smoothest(known, right[kept:], size)
    return StemInverse(F.pixel_shuffle(known, size), kept, matrix.shape[1])


def _before_norm(norm: nn.Module, output: Tensor) -> Tensor:
    """What went into the norm; of layer normalisation without the mean over the channels."""
    if isinstance(norm, ChannelNorm):
        normal = (output - norm.bias[:, None, None]) / _away_from_zero(norm.weight)[:, None, None]
        missing = 1 - normal.square().mean(1, keepdim=True)
        return normal * (norm.eps / missing.clamp(min=torch.finfo(output.dtype).eps)).sqrt()
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.running_mean is not None and norm.running_var is not None
        deviation = (norm.running_var + norm.eps).sqrt() / _away_from_zero(norm.weight)
        return (output - norm.bias[:, None, None]) * deviation[:, None, None] + norm.running_mean[:, None, None]
    return output


def _away_from_zero(x: Tensor) -> Tensor:
    return torch.where(x.abs() < _CLOSE, torch.full_like(x, _CLOSE), x)


def _smoothest(known: Tensor, free: Tensor, size: int) -> Tensor:
    """Patches (B, P, h, w) to which combinations of ``free`` (F, P) are added so that the image is smoothest.

    Conjugate gradients on the sum of squared differences of neighbouring pixels, all images at once.
    """

    def roughness_slope(coefficients: Tensor) -> Tensor:
        image = F.pixel_shuffle(torch.einsum("bfhw,fp->bphw", coefficients, free), size)
        return torch.einsum("bphw,fp->bfhw", F.pixel_unshuffle(_laplacian(image), size), free)

    start = F.pixel_unshuffle(_laplacian(F.pixel_shuffle(known, size)), size)
    residual = -torch.einsum("bphw,fp->bfhw", start, free)
    found, direction = torch.zeros_like(residual), residual
    goal, length = _CLOSE**2 * float(residual.square().sum()), residual.square().sum()
    for _ in range(_STEPS):
        if float(length) <= goal:
            break
        slope = roughness_slope(direction)
        step = length / (direction * slope).sum()
        found, residual = found + step * direction, residual - step * slope
        before, length = length, residual.square().sum()
        direction = residual + length / before * direction
    return known + torch.einsum("bfhw,fp->bphw", found, free)


def _laplacian(image: Tensor) -> Tensor:
    """Gradient of half the sum of squared differences of neighbouring pixels."""
    down, across = image.diff(dim=2), image.diff(dim=3)
    return (F.pad(down, (0, 0, 1, 0)) - F.pad(down, (0, 0, 0, 1))) + (
        F.pad(across, (1, 0, 0, 0)) - F.pad(across, (0, 1, 0, 0))
    )
