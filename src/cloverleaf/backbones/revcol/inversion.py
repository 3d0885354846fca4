"""Earlier columns from later ones: the inverse of the multi-level reversible unit (arXiv 2212.11696, section 2.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from cloverleaf.backbones.revcol.column import Column, Features, widened

_MEMORY = 10
_LEAST_GAIN = 0.2


def invert_column(column: Column, stem: Tensor, features: Features) -> Features:
    """The features of the column to the left, coarsest level first computed: c_k = (c'_k - F_k) / scale_k.

    Exact but for rounding, which grows by about 1 / scale^2 from one column to the next (docs/fidelity.md, entry 117).
    It repeats the forward pass only where nothing is random: in evaluation mode, or without drop path.

    Args:
        column: not the first.
        stem: output of the stem, (B, C, H, W); only the finest level reads it.
        features: of ``column``, finest first.

    Raises:
        ValueError: the first column has no left one.
    """
    if column.first:
        raise ValueError("the first column has no left one")
    left: list[Tensor] = []
    scales = column.effective_scales()
    for k in reversed(range(len(column.levels))):
        residual = widened(column.levels[k](stem, features[:k], left))
        left.insert(0, (features[k] - residual) / scales[k])
    return tuple(left)


def invert_columns(columns: Sequence[Column], stem: Tensor, features: Features) -> list[Features]:
    """The features of all columns but the last, first column first, by inverting one after the other.

    Args:
        columns: all of them, in their order.
        stem: as `invert_column`.
        features: of the last column.
    """
    found: list[Features] = []
    for column in reversed(columns[1:]):
        features = invert_column(column, stem, features)
        found.insert(0, features)
    return found


@dataclass(frozen=True, slots=True)
class FoundStem:
    """The stem's output as found from later features.

    Attributes:
        stem: (B, C, H, W).
        passes: through all columns that it took.
        error: between the maps that ``stem`` leads to and the given ones: the largest difference over the largest
            magnitude, of the level where that is worst. Large where the iteration did not settle, or elsewhere.
    """

    stem: Tensor
    passes: int
    error: float


@torch.no_grad()
def find_stem(
    columns: Sequence[Column], features: Features, *, passes: int = 200, tolerance: float = 1e-13
) -> FoundStem:
    """The output of the stem from nothing but the maps of the last column.

    The columns are a function of the stem's output alone, and the finest map is as large as that. Every column adds it
    to the map and scales what was there, so the map is about b = sum of products of scales times the stem, and
    x <- x + (map - columns(x)) / b comes closer to what led to it. Anderson's acceleration (the least residual over the
    last steps, each image by itself) makes that fast. The coarser maps then tell whether it is the right one. It is an
    iteration, not a formula: with blocks that change much it may fail, and ``error`` says so (docs/fidelity.md, entry
    158).

    Args:
        columns: all of them, in evaluation mode; float64 for small errors.
        features: of the last column, finest first, (B, C, H, W) each.
        passes: at most so many.
        tolerance: error of the finest map that is small enough.
    """
    gain = _stem_gain(columns, features[0])
    x = (features[0] / gain).contiguous()
    best, least, error = x, math.inf, math.inf
    steps: list[Tensor] = []
    residuals: list[Tensor] = []
    taken = 0
    while taken < passes:
        taken += 1
        reached = _run(columns, x)
        of_levels = [_relative(a, b) for a, b in zip(reached, features, strict=True)]
        if of_levels[0] < least:
            best, least, error = x, of_levels[0], max(of_levels)
        if least <= tolerance or not math.isfinite(of_levels[0]):
            break
        residual = (features[0] - reached[0]) / gain
        steps, residuals = [*steps, x][-_MEMORY:], [*residuals, residual][-_MEMORY:]
        x = _accelerated(steps, residuals)
    return FoundStem(best, taken, error)


def _run(columns: Sequence[Column], stem: Tensor) -> Features:
    features: Features = ()
    for column in columns:
        features = column(stem, features)
    return features


def _relative(found: Tensor, given: Tensor) -> float:
    return float((found - given).abs().max() / given.abs().max().clamp(min=torch.finfo(given.dtype).tiny))


def _stem_gain(columns: Sequence[Column], like: Tensor) -> Tensor:
    """(1, C, 1, 1): how often the stem is in the finest map, were the levels to pass it on; never near zero."""
    gain = torch.ones_like(like[:1, :, :1, :1])
    for column in columns[1:]:
        gain = gain * column.effective_scales()[0] + 1
    return torch.where(gain.abs() < _LEAST_GAIN, torch.ones_like(gain), gain)


def _accelerated(steps: Sequence[Tensor], residuals: Sequence[Tensor]) -> Tensor:
    """The next x: from the mixture of the last ones whose residual is smallest."""
    x, residual = steps[-1].flatten(1), residuals[-1].flatten(1)
    if len(steps) == 1:
        return steps[-1] + residuals[-1]
    of_x = torch.stack([(b - a).flatten(1) for a, b in pairwise(steps)], 2)
    of_residuals = torch.stack([(b - a).flatten(1) for a, b in pairwise(residuals)], 2)
    mixture = torch.linalg.lstsq(of_residuals.cpu(), residual.cpu()[..., None], driver="gelsd").solution.to(x)
    moved = x + residual - ((of_x + of_residuals) @ mixture)[..., 0]
    return moved.view(steps[-1].shape)
