"""Dense layers that look at visible positions only; each is made from a plain layer and has its parameters and names.

Inactive positions hold zeros before and after every one of them, so that a dense convolution computes what a
submanifold sparse one does (arXiv 2301.03580, section 3.2).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cloverleaf.layers.convnext import ChannelNorm
from cloverleaf.layers.sparse.cells import VisibleCells


class SparseLayer(nn.Module):
    """What sparse layers have in common.

    Attributes:
        cells: what is visible; one object for all layers of an encoder.
    """

    cells: VisibleCells


class MaskedOutput(SparseLayer):
    """A layer of (B, C, H, W) whose output is set to zero where nothing is visible.

    Attributes:
        masks: False where every reader of the output is an `OverVisible` layer, which does not look at other positions.
    """

    masks: bool = True

    def forward(self, x: Tensor) -> Tensor:
        """The plain layer, then the mask at its resolution."""
        y: Tensor = super().forward(x)
        return y * self.cells.mask(y.shape[2], y.shape[3], y.dtype) if self.masks else y


class MaskedChannelsLast(SparseLayer):
    """A layer of (B, H, W, C) that works on each position alone, masked likewise."""

    def forward(self, x: Tensor) -> Tensor:
        """The plain layer, then the mask."""
        y: Tensor = super().forward(x)
        return y * self.cells.mask(y.shape[1], y.shape[2], y.dtype).permute(0, 2, 3, 1)


class OverVisible(SparseLayer):
    """A layer that works on each position alone, up to statistics over all: it is given the visible ones only.

    BatchNorm so has the statistics of the visible positions, by definition, with the arithmetic of the dense one.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape, zero where nothing is visible."""
        return self.cells.scatter(super().forward(self.cells.gather(x)), x.shape)


_KINDS: tuple[tuple[type[nn.Module], type[SparseLayer]], ...] = (
    (nn.Conv2d, MaskedOutput),
    (nn.MaxPool2d, MaskedOutput),
    (nn.AvgPool2d, MaskedOutput),
    (_BatchNorm, OverVisible),
    (ChannelNorm, MaskedOutput),
    (nn.Linear, MaskedChannelsLast),
)


def sparse_layer(layer: nn.Module, cells: VisibleCells) -> SparseLayer | None:
    """The sparse form of ``layer`` with the same parameters, or None where it needs none or has none.

    Also of subclasses, such as norms with an activation of their own: what they compute stays, what they see changes.
    """
    kind: Any = _kind(layer)
    if kind is None or (isinstance(layer, nn.MaxPool2d | nn.AvgPool2d) and _stays_in_cells(layer)):
        return None
    plain: Any = type(layer)
    own = {key: value.copy() if isinstance(value, dict) else value for key, value in vars(layer).items()}
    sparse_type = _combined(kind, plain)
    made = sparse_type.__new__(sparse_type)
    nn.Module.__init__(made)
    vars(made).update(own)
    made.cells = cells
    return made


def _kind(layer: nn.Module) -> type[SparseLayer] | None:
    if isinstance(layer, nn.LayerNorm):  # the plain one normalises the last axis; NCHW forms derive from it
        return MaskedChannelsLast if type(layer) is nn.LayerNorm else MaskedOutput
    return next((sparse for dense, sparse in _KINDS if isinstance(layer, dense)), None)


def _stays_in_cells(pool: nn.MaxPool2d | nn.AvgPool2d) -> bool:
    """Whether windows tile the map: where cells line up, each then lies in one, and masked ones give zeros anyway."""
    return pool.kernel_size == pool.stride and pool.padding in (0, (0, 0)) and not pool.ceil_mode


@cache
def _combined(kind: Any, plain: Any) -> Any:
    """``plain`` inside ``kind``, as a class such as `SparseConv2d`."""
    return type(f"Sparse{plain.__name__}", (kind, plain), {"__module__": __name__, "__doc__": plain.__doc__})
