"""Inject: distributing a global map into a local one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.necks.gather_distribute.transformer import PLAIN
from cloverleaf.ops.resize import bilinear_to, pool_to


class Inject(nn.Module):
    """Information injection module: local map * gate + global map, at the size of the local map.

    The gate is a hard sigmoid, taken before enlarging; where the global map is taller than the local one it is pooled
    and there is no gate, as in the published code (docs/fidelity.md, entry 64).

    Args:
        local_channels: width of the local map.
        global_channels: width of the global map.
        out_channels: width of the output.
    """

    def __init__(self, local_channels: int, global_channels: int, out_channels: int) -> None:
        super().__init__()
        self.local_embedding = ConvNormAct(local_channels, out_channels, style=PLAIN)
        self.global_embedding = ConvNormAct(global_channels, out_channels, style=PLAIN)
        self.global_act = ConvNormAct(global_channels, out_channels, style=PLAIN)
        for conv in (self.local_embedding, self.global_embedding, self.global_act):
            nn.init.kaiming_normal_(conv.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, local: Tensor, gathered: Tensor) -> Tensor:
        """``(B, C_l, H, W)`` and ``(B, C_g, H_g, W_g)`` -> ``(B, C_out, H, W)``."""
        size_hw = (local.shape[2], local.shape[3])
        embedded, gate = self.global_embedding(gathered), self.global_act(gathered)
        if size_hw[0] < gathered.shape[2]:
            return self.local_embedding(local) * pool_to(gate, size_hw) + pool_to(embedded, size_hw)
        gate = bilinear_to(F.hardsigmoid(gate), size_hw)
        return self.local_embedding(local) * gate + bilinear_to(embedded, size_hw)
