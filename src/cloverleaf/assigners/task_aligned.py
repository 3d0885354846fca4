"""Task-aligned assignment: each object takes the positions inside it that classify and localise it best together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cloverleaf.assigners.pair_costs import smallest
from cloverleaf.assigners.points import DEFAULT_PAIRS, Grids, chunks, overlaps, settle
from cloverleaf.structures import PointAssignment, Targets

_EPS = 1e-9


@dataclass(frozen=True, slots=True)
class TaskAlignedAssigner:
    """The `topk` positions with the best score^alpha * IoU^beta inside each object (TOOD, arXiv 2108.07755).

    Only positions whose middle lies inside an object are looked at, so the work grows with the area of the objects, not
    with objects times positions. Of equal metrics the first positions are taken, and none whose metric is zero: nothing
    can be learned there (docs/fidelity.md, entry 80). A position that several objects want goes to the one that its
    predicted box overlaps most. What a position is to score is its metric, scaled so that the best position of an
    object scores as much as the best IoU of the object's positions. Works on the whole batch at once; beside what is as
    large as the predictions, memory is a few tensors of `max_pairs` values.

    Attributes:
        topk: positions per object; published: 13, and 26 for a branch with three predictions per cell.
        alpha, beta: exponents of score and IoU.
        max_pairs: how many (object, position) pairs are looked at together; at least those of one object are.
    """

    topk: int = 13
    alpha: float = 1.0
    beta: float = 6.0
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
        """Assign; see `cloverleaf.structures.PointAssigner`."""
        if not len(targets):
            return PointAssignment.empty(boxes_xyxy)
        grids = Grids.build(strides, size_hw, boxes_xyxy)
        pairs = _Pairs.build(logits, boxes_xyxy, targets, self.alpha, self.beta)
        inside = _Inside.build(grids, pairs.wanted)
        chosen = [self._choose(pairs, inside, rows) for rows in inside.runs(self.max_pairs)]
        if not chosen:
            return PointAssignment.empty(boxes_xyxy)
        target, position = (torch.cat(part) for part in zip(*chosen, strict=True))
        target, position = settle(target, position, targets, pairs.num_positions, pairs.overlap, self.max_pairs)

        metric, iou = pairs(target, position)
        best_metric, best_iou = (
            metric.new_zeros(len(targets)).scatter_reduce_(0, target, value, "amax") for value in (metric, iou)
        )
        score = metric * (best_iou / (best_metric + _EPS))[target]
        return PointAssignment(position // pairs.num_positions, position % pairs.num_positions, target, score)

    def _choose(self, pairs: _Pairs, inside: _Inside, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(target, position in the batch) of the best positions of the targets ``rows``."""
        position, absent = inside.positions(rows)
        position += pairs.start[rows][:, None]
        metric, _ = pairs(rows[:, None], position)
        cost = metric.neg_().masked_fill_(absent, torch.inf)
        top = min(self.topk, cost.shape[1])
        row, column = smallest(cost, inside.count[rows].clamp(max=top), top)
        useful = cost[row, column] < 0
        row, column = row[useful], column[useful]
        return rows[row], position[row, column]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Metric and IoU of any (target, position) pairs."""

    boxes: Tensor  # (B * P, 4)
    logits: Tensor  # (B * P * K,)
    wanted: Tensor  # (T, 4)
    labels: Tensor  # (T,)
    start: Tensor  # (T,) first position of the target's image in the batch
    num_positions: int
    num_classes: int
    alpha: float
    beta: float

    @classmethod
    def build(cls, logits: Tensor, boxes_xyxy: Tensor, targets: Targets, alpha: float, beta: float) -> _Pairs:
        positions, classes = logits.shape[1:]
        return cls(
            boxes_xyxy.reshape(-1, 4), logits.reshape(-1), targets.boxes_xyxy.to(boxes_xyxy.dtype), targets.labels,
            targets.image_index * positions, positions, classes, alpha, beta,
        )  # fmt: skip

    def overlap(self, target: Tensor, position: Tensor) -> Tensor:
        """IoU of targets with the boxes predicted at positions in the batch; both broadcast."""
        predicted = self.boxes.index_select(0, position.flatten()).view(*position.shape, 4)
        return overlaps(predicted, self.wanted[target])

    def __call__(self, target: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """Metric and IoU; both arguments broadcast."""
        iou = self.overlap(target, position)
        logit = self.logits.take(position * self.num_classes + self.labels[target])
        score = logit.to(iou.dtype).sigmoid().nan_to_num_(nan=0.0)
        return score.pow(self.alpha) * iou.square().pow(self.beta / 2), iou  # small whole exponents are quick


@dataclass(frozen=True, slots=True)
class _Inside:
    """The positions whose middles lie strictly inside each target: one rectangle of cells per level."""

    grids: Grids
    first_row: Tensor  # (T, L) int64, like the following
    first_column: Tensor
    width: Tensor
    cells: Tensor
    count: Tensor  # (T,)

    @classmethod
    def build(cls, grids: Grids, wanted_xyxy: Tensor) -> _Inside:
        x1, y1, x2, y2 = wanted_xyxy[:, None].unbind(-1)  # (T, 1) each
        first_column, width = _between(x1, x2, grids.stride, grids.columns)
        first_row, height = _between(y1, y2, grids.stride, grids.rows)
        cells = width * height
        return cls(grids, first_row, first_column, width.clamp_(min=1), cells, cells.sum(1) * grids.anchors)

    def runs(self, max_pairs: int) -> Iterator[Tensor]:
        """All targets that hold a position, those with about as many together, `max_pairs` positions at a time."""
        size = self.count.float().log2().ceil().long()  # targets of one size differ by less than a factor of two
        size = torch.where(self.count > 0, size + 1, 0)
        order, per_size = size.argsort(stable=True), size.bincount().tolist()
        for power, rows in enumerate(order.split(per_size)):
            if power:
                for first, last in chunks(len(rows), 2 ** (power - 1), max_pairs):
                    yield rows[first:last]

    def positions(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Positions in their image ``(t, W)``, ascending, of the targets ``rows``, and where a row has ended."""
        per_level = self.cells[rows] * self.grids.anchors  # (t, L)
        end = per_level.cumsum(1)
        index = torch.arange(int(end[:, -1].max()), device=rows.device)
        level = (index[:, None] >= end[:, None, :-1]).sum(-1)  # (t, W)

        def of_level(values: Tensor) -> Tensor:
            return values.gather(1, level)

        grids = self.grids
        cells, width = of_level(self.cells[rows]).clamp_(min=1), of_level(self.width[rows])
        rest = index - of_level(end - per_level)
        if grids.anchors > 1:
            anchor = rest // cells
            rest = rest - anchor * cells
        down = rest // width
        row = of_level(self.first_row[rows]) + down
        column = of_level(self.first_column[rows]) + (rest - down * width)
        position = grids.start[level] + row * grids.columns[level] + column
        if grids.anchors > 1:
            position += anchor * (grids.rows * grids.columns)[level]
        absent = index >= end[:, -1:]
        return position.masked_fill_(absent, 0), absent


def _between(low: Tensor, high: Tensor, stride: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """First cell and number of cells, ``(T, L)`` each, whose middle is above ``low`` and below ``high`` ``(T, 1)``."""
    first = (low / stride + 0.5).floor()
    first += ((first + 0.5) * stride - low <= _EPS).to(first.dtype)  # a quotient may have been rounded over the border
    first -= ((first - 0.5) * stride - low > _EPS).to(first.dtype)
    last = (high / stride - 1.5).ceil()
    last -= (high - (last + 0.5) * stride <= _EPS).to(last.dtype)
    last += (high - (last + 1.5) * stride > _EPS).to(last.dtype)
    start = first.long().clamp_(min=0)
    return start, (torch.minimum(last.long(), number - 1) - start + 1).clamp_(min=0)
