"""Which cells of the images are visible, and what follows from it for a map of any resolution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cloverleaf.errors import ConfigError


class VisibleCells:
    """The visible cells of a batch, shared by all sparse layers of one encoder.

    A cell is a square patch of the image. A map of h rows has h / f rows of positions in each of f rows of cells, so
    that every position lies in exactly one cell.
    """

    def __init__(self) -> None:
        self._visible: Tensor | None = None
        self._masks: dict[tuple[Any, ...], Tensor] = {}
        self._rows: dict[tuple[int, int], Tensor] = {}

    def show(self, visible: Tensor) -> None:
        """Make ``visible`` hold until the next call.

        Args:
            visible: (B, 1, f, g) bool or 0 and 1, True where the cell can be seen, on the device of the images.
        """
        self._visible = visible.bool()
        self._masks, self._rows = {}, {}

    @property
    def visible(self) -> Tensor:
        """(B, 1, f, g) bool as shown."""
        if self._visible is None:
            raise RuntimeError("sparse layers run only after VisibleCells.show")
        return self._visible

    def cell_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of positions per cell in a map of ``height`` x ``width``.

        Raises:
            ConfigError: cells and positions do not line up.
        """
        rows, columns = self.visible.shape[2:]
        if height % rows or width % columns or not height or not width:
            raise ConfigError(
                f"a map of {height} x {width} positions does not line up with {rows} x {columns} cells",
                "each cell must hold a whole number of positions",
                "use a patch size that is a multiple of the backbone's coarsest stride",
            )
        return height // rows, width // columns

    def mask(self, height: int, width: int, dtype: torch.dtype) -> Tensor:
        """(B, 1, height, width), 1 at visible positions and 0 at the others."""
        key = (height, width, dtype)
        if key not in self._masks:
            tall, wide = self.cell_size(height, width)
            mask = self.visible.repeat_interleave(tall, 2).repeat_interleave(wide, 3)
            self._masks[key] = mask.to(dtype)
        return self._masks[key]

    def rows(self, height: int, width: int) -> Tensor:
        """Indices of the visible ones among the B * height * g runs of positions that lie in one cell and one row."""
        key = (height, width)
        if key not in self._rows:
            tall, _ = self.cell_size(height, width)
            self._rows[key] = self.visible[:, 0].repeat_interleave(tall, 1).reshape(-1).nonzero().squeeze(1)
        return self._rows[key]

    def gather(self, x: Tensor) -> Tensor:
        """The visible positions of (B, C, H, W) alone, as (1, C, n, 1) in channels-last order."""
        _, wide = self.cell_size(x.shape[2], x.shape[3])
        gathered: Tensor = _Gather.apply(x, self.rows(x.shape[2], x.shape[3]), wide)
        return gathered

    def scatter(self, values: Tensor, shape: torch.Size) -> Tensor:
        """The reverse of `gather`: (1, C, n, 1) -> ``shape``, zeros at the other positions, channels-last."""
        _, wide = self.cell_size(shape[2], shape[3])
        scattered: Tensor = _Scatter.apply(values, self.rows(shape[2], shape[3]), wide, shape)
        return scattered


def _taken(x: Tensor, rows: Tensor, wide: int) -> Tensor:
    channels = x.shape[1]
    runs = x.permute(0, 2, 3, 1).reshape(-1, wide * channels)
    return runs.index_select(0, rows).view(1, -1, channels, 1).transpose(1, 2)


def _put(values: Tensor, rows: Tensor, wide: int, shape: torch.Size) -> Tensor:
    # Not a view, because activations that follow may work in place.
    full = torch.empty(shape, dtype=values.dtype, device=values.device, memory_format=torch.channels_last).zero_()
    runs = full.permute(0, 2, 3, 1).view(-1, wide * shape[1])
    runs.index_copy_(0, rows, values.transpose(1, 2).reshape(-1, wide * shape[1]))
    return full


class _Gather(torch.autograd.Function):
    """`_taken`; positions that were left out get zero gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, wide: int) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.wide, ctx.shape = wide, x.shape
        return _taken(x, rows, wide)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (rows,) = ctx.saved_tensors
        return _put(gradient, rows, ctx.wide, ctx.shape), None, None


class _Scatter(torch.autograd.Function):
    """`_put`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor, wide: int, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.wide = wide
        return _put(values, rows, wide, shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (rows,) = ctx.saved_tensors
        return _taken(gradient, rows, ctx.wide), None, None, None
