"""The operators that combine a constant with a map, as pure functions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cloverleaf.layers.implicit.options import Operator


def combine(operator: Operator, x: Tensor, constant: Tensor) -> Tensor:
    """``x`` and ``constant`` combined (arXiv 2105.04206, equation 3).

    Args:
        operator: which one.
        x: ``(B, C, H, W)`` or ``(B, C)``.
        constant: ``(C,)``; ``(n,)`` of a concatenation; ``(K, C)`` of an inner product.

    Returns:
        As ``x``; with n + C channels after a concatenation, the constant first; with K after an inner product.
    """
    spatial = (1,) * (x.dim() - 2)
    if operator == "inner":
        return F.conv2d(x, constant[:, :, None, None]) if spatial else F.linear(x, constant)
    spread = constant.reshape(1, -1, *spatial)
    match operator:
        case "add":
            return x + spread
        case "multiply":
            return x * spread
        case "gate":
            return x * spread.sigmoid()
        case "concatenate":
            return torch.cat((spread.expand(x.shape[0], -1, *x.shape[2:]), x), 1)
