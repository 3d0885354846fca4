"""Sums over the processes of a distributed run."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def sum_over_processes(value: Tensor) -> Tensor:
    """``value`` summed over all processes (no gradient); itself in a single process."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value
