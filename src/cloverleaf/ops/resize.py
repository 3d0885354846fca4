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
    before, after = (x.shape[2], x.shape[3]), size_hw
    if torch.jit.is_tracing():  # sizes are tensors then; TorchScript takes them for constants
        before, after = (int(before[0]), int(before[1])), (int(after[0]), int(after[1]))
    if before == after:
        return x
    if all(statically_known_true(b % a == 0) for b, a in zip(before, after, strict=True)):
        return F.avg_pool2d(x, (before[0] // after[0], before[1] // after[1]))
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        rows, columns = _averages(before[0], after[0], x), _averages(before[1], after[1], x)
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
