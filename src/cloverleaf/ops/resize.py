"""Maps brought to another size: average pooling and bilinear enlarging that export with the same numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn import functional as F


def pool_to(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Adaptive average pooling of ``(B, C, H, W)`` to ``(B, C, *size_hw)``.

    Window i of h covers rows floor(i H / h) to ceil((i + 1) H / h) - 1. Exporters know adaptive pooling only where h
    divides H, and common substitutes give other numbers; here the general case becomes two products with constant
    matrices while a graph is recorded, and plain pooling where sizes divide.
    """
    height, width = size_hw
    if (x.shape[2], x.shape[3]) == (height, width):
        return x
    if statically_known_true(x.shape[2] % height == 0) and statically_known_true(x.shape[3] % width == 0):
        return F.avg_pool2d(x, (x.shape[2] // height, x.shape[3] // width))
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        rows, columns = _averages(x.shape[2], height, x), _averages(x.shape[3], width, x)
        return rows @ x @ columns.T
    return F.adaptive_avg_pool2d(x, size_hw)


def bilinear_to(x: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """``(B, C, H, W)`` resized bilinearly to ``(B, C, *size_hw)``, corners not aligned, without antialiasing."""
    if (x.shape[2], x.shape[3]) == size_hw:
        return x
    return F.interpolate(x, size=size_hw, mode="bilinear", align_corners=False)


def _averages(before: int, after: int, like: Tensor) -> Tensor:
    """``(after, before)`` matrix whose row i averages the window i."""
    window = torch.arange(after, device=like.device)[:, None]
    position = torch.arange(before, device=like.device)
    inside = (position >= window * before // after) & (position < -(-(window + 1) * before // after))
    weights = inside.to(like.dtype)
    return weights / weights.sum(1, keepdim=True)
