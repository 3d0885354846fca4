"""What matching an object with a candidate of its image costs, for SimOTA: laid out once, computed where asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cloverleaf.ops.boxes import box_area
from cloverleaf.structures import Targets

_IOU_WEIGHT = 3.0  # of -ln(IoU) against the class cost
_LARGEST_PROBABILITY = 1 - 2.0**-24  # the float32 below 1
_SMALLEST_LOG = -87.0  # ln of about the smallest normal float32
_SMALLEST_AREA = 1e-12  # keeps the union of two boxes without size above zero
_UNUSABLE = 1e30  # class cost of candidates whose prediction is not a number


@dataclass(frozen=True, slots=True)
class Slots:
    """Candidates laid out as one row per image, padded to the longest row."""

    candidate: Tensor  # (B, N) index of the candidate; 0 in empty slots
    empty: Tensor  # (B, N) bool

    @classmethod
    def build(cls, image_index: Tensor, num_images: int) -> Slots:
        """The layout of candidates that lie in the images ``image_index`` ``(n,)``; their order in an image is kept."""
        order = image_index.argsort(stable=True)
        counts = image_index.bincount(minlength=num_images)
        position = torch.arange(int(counts.max()), device=image_index.device)
        empty = position >= counts[:, None]
        index = (counts.cumsum(0) - counts)[:, None] + position
        return cls(order[index.masked_fill_(empty, 0)], empty)

    @property
    def width(self) -> int:
        """N."""
        return int(self.empty.shape[1])

    def table(self, values: Tensor, fill: float) -> Tensor:
        """``(n, C)`` of the candidates to ``(C, B, N)`` with ``fill`` in empty slots."""
        table = values.index_select(0, self.candidate.flatten()).T.contiguous().view(-1, *self.candidate.shape)
        return table.masked_fill_(self.empty, fill)


@dataclass(frozen=True, slots=True)
class PairCosts:
    """Costs of (target, slot) pairs: 3 times -ln(IoU + 1e-8) plus the class cost; infinite for empty slots.

    The class cost is the binary cross-entropy, summed over classes, of q = sqrt(class * objectness) with the one-hot
    class of the target. That is one sum per candidate, as if no class were right, and a correction by the target's
    class, so that nothing is laid out over targets, candidates and classes. Probabilities are kept below 1 and above
    the smallest float32, so that saturated logits cost much, but not infinitely much.
    """

    predicted: tuple[Tensor, ...]  # x1, y1, x2, y2, area of the predicted boxes, (B, N) each
    class_cost: Tensor  # (K * B, N)
    wanted: tuple[Tensor, ...]  # x1, y1, x2, y2, area of the targets, (T, 1) each
    image: Tensor  # (T,) row of `predicted`
    row: Tensor  # (T,) row of `class_cost`

    @classmethod
    def build(
        cls, predicted_xyxy: Tensor, logits: Tensor, slots: Slots, wanted_xyxy: Tensor, targets: Targets
    ) -> PairCosts:
        """From candidates and targets.

        Args:
            predicted_xyxy: ``(n, 4)`` predicted boxes of the candidates in input pixels.
            logits: ``(n, 1 + K)`` their logits, objectness first.
            slots: their layout.
            wanted_xyxy: ``(T, 4)`` boxes of the targets in input pixels.
            targets: the targets.
        """
        log_q = torch.nn.functional.logsigmoid(logits)
        log_q = (log_q[:, 1:] + log_q[:, :1]).div_(2).clamp_(min=_SMALLEST_LOG)
        log_not_q = log_q.exp().clamp_(max=_LARGEST_PROBABILITY).neg_().log1p_()
        cost = log_not_q - log_not_q.sum(1, keepdim=True) - log_q
        cost = cost.nan_to_num_(nan=_UNUSABLE)
        sides = torch.cat((predicted_xyxy, box_area(predicted_xyxy)[:, None]), 1).nan_to_num_(nan=0.0)
        x1, y1, x2, y2, area = slots.table(sides, 0.0).unbind()
        return cls(
            (x1, y1, x2, y2, area.clamp_(min=_SMALLEST_AREA)),
            slots.table(cost, torch.inf).flatten(0, 1),
            torch.cat((wanted_xyxy, box_area(wanted_xyxy)[:, None]), 1)[..., None].unbind(1),
            targets.image_index,
            targets.labels * targets.num_images + targets.image_index,
        )

    def rows(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """IoU and cost ``(t, N)`` of the targets from ``first`` to before ``last`` with all slots of their images."""
        image = self.image[first:last]
        predicted = [side.index_select(0, image) for side in self.predicted]  # rows of whole images: block copies
        iou = _iou(predicted, [side[first:last] for side in self.wanted])
        return iou, self._cost(iou, self.class_cost.index_select(0, self.row[first:last]))

    def pairs(self, target: Tensor, slot: Tensor) -> Tensor:
        """Cost of any pairs.

        Args:
            target: indices of targets.
            slot: indices into the flat (B, N), of the image of the target; broadcast against `target`.
        """
        predicted = [side.flatten()[slot].expand_as(target) for side in self.predicted]
        iou = _iou(predicted, [side[:, 0][target] for side in self.wanted])
        width = self.class_cost.shape[1]
        return self._cost(iou, self.class_cost.flatten()[self.row[target] * width + slot % width])

    def _cost(self, iou: Tensor, class_cost: Tensor) -> Tensor:
        return class_cost.sub_((iou + 1e-8).log_(), alpha=_IOU_WEIGHT)


def smallest(cost: Tensor, k: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """(row, column) of the ``k[i]`` least costs of each row i of ``(T, N)``; all k <= top <= N.

    Of equal costs the first columns are taken. `torch.topk` promises nothing about that, and equal costs are common,
    because several objects propose the same cell; so rows where equal costs are on both sides of the limit are looked
    through once more.
    """
    values, columns = cost.topk(min(top + 1, cost.shape[1]), dim=1, largest=False)
    rank = torch.arange(values.shape[1], device=cost.device)
    taken = rank < k[:, None]
    after = k.clamp(max=values.shape[1] - 1)[:, None]
    limit = values.gather(1, k[:, None] - 1)
    tied = ((values.gather(1, after) == limit) & (after == k[:, None]))[:, 0].nonzero()[:, 0]
    taken[tied] = False
    row, place = taken.nonzero(as_tuple=True)
    again, column = _smallest_first(cost[tied], limit[tied], k[tied])
    return torch.cat((row, tied[again])), torch.cat((columns[row, place], column))


def _smallest_first(cost: Tensor, limit: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """As `smallest`, where ``limit`` ``(T, 1)`` is the k-th least cost of each row."""
    row, column = (cost <= limit).nonzero(as_tuple=True)
    equal = cost[row, column] == limit[row, 0]
    total, total_equal = row.bincount(minlength=len(k)), row[equal].bincount(minlength=len(k))
    wanted_equal = k - (total - total_equal)
    rank = equal.cumsum(0) - (total_equal.cumsum(0) - total_equal)[row]  # 1 for the first equal cost of a row
    taken = ~equal | (rank <= wanted_equal[row])
    return row[taken], column[taken]


def _iou(predicted: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """IoU of boxes as (x1, y1, x2, y2, area) that broadcast."""
    x1, y1, x2, y2, area = predicted
    left, top, right, bottom, own = wanted
    width = torch.minimum(x2, right).sub_(torch.maximum(x1, left)).clamp_(min=0)
    height = torch.minimum(y2, bottom).sub_(torch.maximum(y1, top)).clamp_(min=0)
    overlap = width.mul_(height)
    return overlap / (area + own).sub_(overlap)
