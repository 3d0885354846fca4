"""What the objectness of a cell is trained towards."""

from __future__ import annotations

import torch
from torch import Tensor

_FINE_REACH = 1.0  # cells; no candidate of the fine labels is farther from its object
_COARSE_REACH = 1.5  # cells; no candidate of the coarse labels is farther


def coarse_bound(centre_in_cell: Tensor) -> Tensor:
    """Upper bound of the objectness that a coarse label may ask for (arXiv 2207.02696, section 4.2 and table 7).

    The paper bounds it by the distance to the centre of the object and gives no formula; ours (docs/fidelity.md, entry
    52) is ``clamp(3 - 2 d, 0, 1)`` with d the distance, in cells, from the middle of the cell to the centre of the
    object along the axis where it is longer. It is 1 for every cell that could be a fine label (d <= 1) and falls to 0
    where the coarse candidates end (d = 1.5), so that only the additional cells are held back.

    Args:
        centre_in_cell: ``(n, 2)`` centres of the objects in cells, from the corner of the labelled cell.

    Returns:
        ``(n,)`` in [0, 1].
    """
    distance = (centre_in_cell - 0.5).abs().amax(-1)
    return ((_COARSE_REACH - distance) / (_COARSE_REACH - _FINE_REACH)).clamp(0, 1)


def last_value(cell: Tensor, value: Tensor, size: int) -> Tensor:
    """``(size,)`` zeros with ``value`` at ``cell``; of equal cells the last one counts, on every device."""
    order = cell.argsort(stable=True)
    cell, value = cell[order], value[order]
    last = torch.ones_like(cell, dtype=torch.bool)
    last[:-1] = cell[1:] != cell[:-1]
    return value.new_zeros(size).scatter_(0, cell[last], value[last])
