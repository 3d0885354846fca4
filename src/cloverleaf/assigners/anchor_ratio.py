"""Candidates of anchor-based heads: cells around a centre, anchors of similar size; also used as an assigner itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cloverleaf.ops.boxes import xyxy_to_cxcywh
from cloverleaf.structures import AnchorAssignment, Targets

CellTies = Literal["both", "lower"]

# (x, y) directions from the own cell, in the published order: none, left, up, right, down.
_DIRECTIONS = ((0.0, 0.0), (-1.0, 0.0), (0.0, -1.0), (1.0, 0.0), (0.0, 1.0))


@dataclass(frozen=True, slots=True)
class AnchorRatioAssigner:
    """Every anchor of similar size in the nearest cells is a positive (the loss of YOLOR, the plain one of YOLOv7).

    Attributes:
        anchor_t: an anchor fits a box when neither side differs by this factor or more.
        reach: a neighbour cell is added when the centre is nearer to it than this share of a cell: 0.5 gives the own
            cell and normally the two nearest ("3 positive"), 1.0 all four direct neighbours ("5 positive").
        cell_ties: whether a centre exactly between two cells proposes `both` neighbours, or the `lower` one alone.
    """

    anchor_t: float = 4.0
    reach: float = 0.5
    cell_ties: CellTies = "both"

    @torch.no_grad()
    def __call__(
        self,
        levels: Sequence[Tensor],
        targets: Targets,
        anchors_px: Tensor,
        strides: Sequence[int],
        size_hw: tuple[int, int],
    ) -> AnchorAssignment:
        """All candidates; see `find_candidates` and `cloverleaf.structures.AnchorAssigner`."""
        grids_hw = [(level.shape[2], level.shape[3]) for level in levels]
        return find_candidates(
            targets, anchors_px, grids_hw, size_hw,
            anchor_t=self.anchor_t, reach=self.reach, cell_ties=self.cell_ties,
        )  # fmt: skip


@torch.no_grad()
def find_candidates(
    targets: Targets,
    anchors_px: Tensor,
    grids_hw: Sequence[tuple[int, int]],
    size_hw: tuple[int, int],
    *,
    anchor_t: float,
    reach: float,
    cell_ties: CellTies = "both",
) -> AnchorAssignment:
    """The candidate search of the published YOLOR and YOLOv7, over levels, anchors and targets at once.

    Letters: L levels, S directions (5), A anchors, T targets. A pair (anchor, target) fits when both sides agree within
    the factor `anchor_t`; it proposes the own cell and the neighbours within `reach`, but no cell outside the grid.
    Centres on the far border fall into the last cell. The two published forms of YOLOR differ for centres exactly on
    the line between two cells (`cell_ties`): measured from the far side as from the near one, such a centre is near
    both neighbours; where the far neighbour must have more than half of the way behind it, it is near the lower one.

    Args:
        targets: ground truth of the batch.
        anchors_px: ``(L, A, 2)`` (width, height) in input pixels.
        grids_hw: rows and columns of each level.
        size_hw: network-input size.
        anchor_t: see `AnchorRatioAssigner`.
        reach: see `AnchorRatioAssigner`.
        cell_ties: see `AnchorRatioAssigner`.

    Returns:
        The candidates in the order (level, direction, anchor, target), which decides between duplicate cells.
    """
    boxes = xyxy_to_cxcywh(targets.boxes_xyxy)
    grid_wh = boxes.new_tensor([(w, h) for h, w in grids_hw])[:, None]  # (L, 1, 2)
    scale = grid_wh / boxes.new_tensor([size_hw[1], size_hw[0]])
    centre = boxes[:, :2] * scale  # (L, T, 2) in cells

    ratio = boxes[:, 2:] / anchors_px.to(boxes)[:, :, None]  # (L, A, T, 2)
    fits = torch.maximum(ratio, ratio.reciprocal()).amax(-1) < anchor_t  # (L, A, T)

    def near(position: Tensor) -> Tensor:
        return (position.remainder(1) < reach) & (position > 1)

    low = near(centre)
    if cell_ties == "both":
        high = near(grid_wh - centre)
    else:
        high = (centre.remainder(1) > 1 - reach) & (centre < grid_wh - 1)
    # (L, S, T), in the order of _DIRECTIONS
    proposes = torch.stack((torch.ones_like(low[..., 0]), low[..., 0], low[..., 1], high[..., 0], high[..., 1]), 1)

    chosen = proposes[:, :, None] & fits[:, None]  # (L, S, A, T)
    level, direction, anchor, target = chosen.nonzero(as_tuple=True)
    shift = centre.new_tensor(_DIRECTIONS) * reach
    cell = (centre[level, target] + shift[direction]).long()
    last = (grid_wh[:, 0].long() - 1)[level]
    column, row = torch.minimum(cell.clamp_(min=0), last).unbind(-1)
    return AnchorAssignment(level, targets.image_index[target], anchor, row, column, target)
