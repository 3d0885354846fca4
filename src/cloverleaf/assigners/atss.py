"""ATSS: positions near an object whose anchor overlaps it more than is usual for that object; needs no predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cloverleaf.assigners.pair_costs import smallest
from cloverleaf.assigners.points import DEFAULT_PAIRS, Grids, chunks, overlaps, settle
from cloverleaf.structures import PointAssignment, Targets

_ANCHOR_SIDE = 5.0  # cells
_EPS = 1e-9


@dataclass(frozen=True, slots=True)
class AtssAssigner:
    """Adaptive training sample selection (arXiv 1912.02424) with one square anchor of five cells per position.

    On every level the `topk` positions nearest to the centre of an object are its candidates. Those are positive whose
    anchor's IoU is above the mean plus the standard deviation over the candidates, and whose middle is inside the
    object. A position that several objects want goes to the one that overlaps its anchor most. What it is to score is
    the IoU of the predicted box. Levels with fewer positions give what they have (docs/fidelity.md, entry 81). Works on
    the whole batch at once.

    The nearest positions of a grid lie in a small window around the centre, so the work does not grow with the image.

    Attributes:
        topk: candidates per level.
        max_pairs: how many (object, position) pairs are looked at together; at least those of one object are.
    """

    topk: int = 9
    max_pairs: int = DEFAULT_PAIRS

    @torch.no_grad()
    def __call__(
        self,
        logits: Tensor,
        boxes_xyxy: Tensor,
        targets: Targets,
        strides: Sequence[int],
        size_hw: tuple[int, int],
    ) -> PointAssignment:
        """Assign; see `cloverleaf.structures.PointAssigner`. Only for one prediction per cell."""
        grids, num_positions = Grids.build(strides, size_hw, boxes_xyxy), boxes_xyxy.shape[1]
        if grids.anchors > 1:
            raise ValueError("ATSS is for heads with one prediction per cell")
        if not len(targets):
            return PointAssignment.empty(boxes_xyxy)
        wanted = targets.boxes_xyxy.to(boxes_xyxy.dtype)
        middles, anchors = _middles_and_anchors(grids)

        per_target = len(strides) * (self.topk + 4) ** 2
        chosen = []
        for first, last in chunks(len(targets), per_target, self.max_pairs):
            position = self._candidates(grids, wanted[first:last])  # (t, C)
            iou = overlaps(anchors[position], wanted[first:last, None])
            centred = iou - iou.mean(1, keepdim=True)
            deviation = (centred.square().sum(1, keepdim=True) / max(position.shape[1] - 1, 1)).sqrt()
            margins = torch.cat(
                (middles[position] - wanted[first:last, None, :2], wanted[first:last, None, 2:] - middles[position]), -1
            )
            row, column = ((centred > deviation) & (margins.amin(-1) > _EPS)).nonzero(as_tuple=True)
            chosen.append((row + first, position[row, column]))
        target, position = (torch.cat(part) for part in zip(*chosen, strict=True))
        position = position + targets.image_index[target] * num_positions

        def overlap(target: Tensor, position: Tensor) -> Tensor:
            return overlaps(anchors[position % num_positions], wanted[target])

        target, position = settle(target, position, targets, num_positions, overlap, self.max_pairs)
        score = overlaps(boxes_xyxy.reshape(-1, 4)[position], wanted[target])
        return PointAssignment(position // num_positions, position % num_positions, target, score)

    def _candidates(self, grids: Grids, wanted_xyxy: Tensor) -> Tensor:
        """The nearest positions ``(t, C)`` of every level, C the same for every target.

        They lie in a window of `topk` cells and one more on either side around the centre, moved into the grid: every
        other position of a column is farther than `topk` positions of that column.
        """
        centre = (wanted_xyxy[:, None, :2] + wanted_xyxy[:, None, 2:]) / 2 / grids.stride[:, None]  # (t, L, 2)
        grid = torch.stack((grids.columns, grids.rows), -1)  # (L, 2)
        reach = self.topk // 2 + 1
        side = 2 * reach + 1
        start = torch.minimum(centre.floor().long() - reach, grid - side).clamp_(min=0)
        cell = start[..., None] + torch.arange(side, device=start.device)  # (t, L, 2, S)
        distance = (cell + 0.5 - centre[..., None]).square()
        distance = distance.masked_fill_(cell >= grid[..., None], torch.inf)
        cost = (distance[:, :, 1, :, None] + distance[:, :, 0, None, :]).flatten(2)  # (t, L, S * S), row by row

        count = (grids.rows * grids.columns).clamp(max=self.topk).expand(len(cost), -1)
        row, column = smallest(cost.flatten(0, 1), count.flatten(), self.topk)
        order = (row * side * side + column).argsort()
        target, level = row[order] // len(grid), row[order] % len(grid)
        down, right = column[order] // side, column[order] % side
        x, y = start[target, level].unbind(-1)
        position = grids.start[level] + (y + down) * grids.columns[level] + x + right
        return position.view(len(cost), -1)


def _middles_and_anchors(grids: Grids) -> tuple[Tensor, Tensor]:
    """Middles ``(N, 2)`` of all positions and the anchors ``(N, 4)`` around them, in pixels."""
    cells = grids.rows * grids.columns
    level = torch.arange(len(cells), device=cells.device).repeat_interleave(cells)
    index = torch.arange(len(level), device=cells.device) - grids.start[level]
    columns, stride = grids.columns[level], grids.stride[level][:, None]
    middles = (torch.stack((index % columns, index // columns), -1) + 0.5) * stride
    half = stride * (_ANCHOR_SIDE / 2)
    return middles, torch.cat((middles - half, middles + half), -1)
