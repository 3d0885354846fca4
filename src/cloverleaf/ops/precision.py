"""Arithmetic that half precision is not enough for."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(values: Tensor) -> Tensor:
    """``values``, in float32 if they were in half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
