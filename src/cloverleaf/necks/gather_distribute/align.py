"""FAM, the feature alignment modules: maps of all levels brought to one size and concatenated."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cloverleaf.ops.resize import bilinear_to, pool_to


class LowFam(nn.Module):
    """Low-stage FAM: every map brought to the size of the second coarsest one; no weights."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps ``(B, C_l, H_l, W_l)``, finest first -> ``(B, sum C_l, H_n, W_n)`` with n the second coarsest."""
        *_, target, coarsest = maps
        size_hw = (target.shape[2], target.shape[3])
        return torch.cat((*(pool_to(x, size_hw) for x in maps[:-1]), bilinear_to(coarsest, size_hw)), 1)


class HighFam(nn.Module):
    """High-stage FAM: every map pooled to half the size of the coarsest one, rounded up; no weights."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps ``(B, C_l, H_l, W_l)``, finest first -> ``(B, sum C_l, ceil(H / 2), ceil(W / 2))``."""
        coarsest = maps[-1]
        size_hw = ((coarsest.shape[2] - 1) // 2 + 1, (coarsest.shape[3] - 1) // 2 + 1)
        return torch.cat([pool_to(x, size_hw) for x in maps], 1)
