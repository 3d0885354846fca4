"""SimOTA: of all candidates each object takes the few that the network already predicts best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cloverleaf.assigners.anchor_ratio import find_candidates
from cloverleaf.ops.boxes import box_area, cxcywh_to_xyxy
from cloverleaf.ops.cells import box_channels, decode_in_cells, gather_cells
from cloverleaf.structures import AnchorAssignment, Targets

_IOU_WEIGHT = 3.0  # of -ln(IoU) against the class cost
_LARGEST_PROBABILITY = 1 - 2.0**-24  # the float32 below 1
_SMALLEST_LOG = -87.0  # ln of about the smallest normal float32


@dataclass(frozen=True, slots=True)
class SimOtaAssigner:
    """Dynamic-k matching of YOLOv7 (arXiv 2207.02696, after YOLOX, arXiv 2107.08430), without any loop over images.

    Candidates come from `find_candidates`. Every object may take any candidate of its image, whichever object proposed
    it: k of them with the least cost, where k is the sum of its `top_candidates` best IoUs, at least 1. A candidate
    wanted by several objects goes to the object of the image whose cost is least there. Ties go to the first candidate
    and to the first object, on every device.

    Letters: T targets of the batch, N the most candidates of one image, B images, K classes. Memory is a few (T, N) and
    (B, N, K) tensors; there is no (T, N, K).

    Attributes:
        anchor_t: see `AnchorRatioAssigner`.
        reach: see `AnchorRatioAssigner`; 0.5 for lead heads, 1.0 for auxiliary ones.
        top_candidates: how many best IoUs are summed for k.
        bins: of a head that classifies the sides of boxes (SigmoidBin); 0 where they are regressed.
        published_rectangular: scale the boxes by the image height on both axes, as the published code does. Wrong for
            inputs that are not square, and only for comparison with that code.
    """

    anchor_t: float = 4.0
    reach: float = 0.5
    top_candidates: int = 10
    bins: int = 0
    published_rectangular: bool = False

    @torch.no_grad()
    def __call__(
        self,
        levels: Sequence[Tensor],
        targets: Targets,
        anchors_px: Tensor,
        strides: Sequence[int],
        size_hw: tuple[int, int],
    ) -> AnchorAssignment:
        """Assign; see `cloverleaf.structures.AnchorAssigner`."""
        grids_hw = [(level.shape[2], level.shape[3]) for level in levels]
        candidates = find_candidates(targets, anchors_px, grids_hw, size_hw, anchor_t=self.anchor_t, reach=self.reach)
        if not len(candidates):
            return candidates
        counts = candidates.level.bincount(minlength=len(levels)).tolist()
        raw = gather_cells(levels, candidates, counts)  # (n, C)
        boxes = self._predicted_boxes(raw, candidates, anchors_px, raw.new_tensor(strides))

        slots = _Slots.build(candidates.image_index, targets.num_images)
        wanted_xyxy = targets.boxes_xyxy.float()
        if self.published_rectangular:
            wanted_xyxy = wanted_xyxy * wanted_xyxy.new_tensor([size_hw[0] / size_hw[1], 1.0] * 2)
        iou = _pair_iou(wanted_xyxy, slots.table(boxes), targets.image_index)  # (T, N), 0 in empty slots
        iou.masked_fill_(slots.empty[targets.image_index], 0.0)
        cost = _class_cost(raw[:, box_channels(self.bins) :], slots, targets) - _IOU_WEIGHT * (iou + 1e-8).log_()
        cost.nan_to_num_(nan=torch.finfo(cost.dtype).max).masked_fill_(slots.empty[targets.image_index], torch.inf)

        taker = self._match(iou, cost, slots, targets)  # (B * N,), -1 where nobody takes the slot
        slot = (taker >= 0).nonzero()[:, 0]
        picked = slots.candidate.flatten()[slot]
        order = candidates.level[picked].argsort(stable=True)
        return _pick(candidates, picked[order], taker[slot[order]])

    def _predicted_boxes(self, raw: Tensor, cells: AnchorAssignment, anchors_px: Tensor, strides: Tensor) -> Tensor:
        """Boxes predicted by cells: ``(n, C)`` logits to ``(n, 4)`` corners in input pixels."""
        boxes = decode_in_cells(raw, cells, anchors_px, strides, self.bins)
        boxes[:, :2] += torch.stack((cells.column, cells.row), -1)
        return cxcywh_to_xyxy(boxes * strides[cells.level][:, None])

    def _match(self, iou: Tensor, cost: Tensor, slots: _Slots, targets: Targets) -> Tensor:
        """The target that takes each slot, ``(B * N,)``, -1 for none."""
        top = min(self.top_candidates, cost.shape[1])
        k = iou.topk(top, dim=1).values.sum(1).long().clamp_(min=1)
        target, column = _smallest(cost, k, top)
        slot = targets.image_index[target] * cost.shape[1] + column
        real = ~slots.empty.flatten()[slot]
        target, slot = target[real], slot[real]

        taker = torch.full((slots.empty.numel(),), -1, device=cost.device)
        taker[slot] = target
        disputed = (slot.bincount(minlength=len(taker)) > 1).nonzero()[:, 0]
        taker[disputed] = _cheapest_target(cost, disputed, targets)
        return taker


@dataclass(frozen=True, slots=True)
class _Slots:
    """Candidates laid out as one row per image, padded to the longest row."""

    candidate: Tensor  # (B, N) index of the candidate; 0 in empty slots
    empty: Tensor  # (B, N) bool

    @classmethod
    def build(cls, image_index: Tensor, num_images: int) -> _Slots:
        order = image_index.argsort(stable=True)
        counts = image_index.bincount(minlength=num_images)
        position = torch.arange(int(counts.max()), device=image_index.device)
        empty = position >= counts[:, None]
        index = (counts.cumsum(0) - counts)[:, None] + position
        return cls(order[index.masked_fill_(empty, 0)], empty)

    def table(self, values: Tensor) -> Tensor:
        """``(n, C)`` of the candidates to ``(B, N, C)``; empty slots repeat some candidate."""
        return values.index_select(0, self.candidate.flatten()).view(*self.candidate.shape, values.shape[1])


def _pair_iou(target_xyxy: Tensor, predicted_xyxy: Tensor, image_index: Tensor) -> Tensor:
    """IoU of every target ``(T, 4)`` with the predictions ``(B, N, 4)`` of its image: ``(T, N)``."""
    sides = torch.cat((predicted_xyxy, box_area(predicted_xyxy)[..., None]), -1).permute(2, 0, 1).contiguous()
    x1, y1, x2, y2, area = (side.index_select(0, image_index) for side in sides)  # rows of whole images: block copies
    left, top, right, bottom = target_xyxy[:, :, None].unbind(1)
    width = torch.minimum(x2, right).sub_(torch.maximum(x1, left)).clamp_(min=0)
    height = torch.minimum(y2, bottom).sub_(torch.maximum(y1, top)).clamp_(min=0)
    overlap = width.mul_(height)
    return overlap / area.add_(box_area(target_xyxy)[:, None]).sub_(overlap)


def _class_cost(logits: Tensor, slots: _Slots, targets: Targets) -> Tensor:
    """Binary cross-entropy of q = sqrt(class * objectness) with the one-hot class of each target.

    Summed over classes this is one sum per candidate, as if no class were right, and a correction by the target's
    class: only those are laid out over pairs. Probabilities are kept below 1 and above the smallest float32, so that
    saturated logits cost much, but not infinitely much.

    Args:
        logits: ``(n, 1 + K)`` of the candidates, objectness first.
        slots: their layout.
        targets: T targets.

    Returns:
        ``(T, N)``.
    """
    log_q = torch.nn.functional.logsigmoid(logits)
    log_q = ((log_q[:, 1:] + log_q[:, :1]) / 2).clamp_(min=_SMALLEST_LOG)
    log_not_q = torch.log1p(-log_q.exp().clamp_(max=_LARGEST_PROBABILITY))
    base = slots.table(-log_not_q.sum(-1, keepdim=True))[..., 0]  # (B, N)
    correction = slots.table(log_not_q.sub_(log_q)).mT.contiguous()  # (B, K, N)
    rows = targets.image_index * correction.shape[1] + targets.labels
    return correction.flatten(0, 1).index_select(0, rows).add_(base.index_select(0, targets.image_index))


def _smallest(cost: Tensor, k: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """(row, column) of the ``k[i]`` least costs of each row i of ``(T, N)``, by row and then column; all k <= top.

    Of equal costs the first columns are taken. `torch.topk` promises nothing about that, and equal costs are common,
    because several objects propose the same cell; so it only supplies the k-th value.
    """
    kth = cost.topk(top, dim=1, largest=False).values.gather(1, k[:, None] - 1)
    row, column = (cost <= kth).nonzero(as_tuple=True)
    equal = cost[row, column] == kth[row, 0]
    total, total_equal = row.bincount(minlength=len(k)), row[equal].bincount(minlength=len(k))
    wanted_equal = k - (total - total_equal)
    rank = equal.cumsum(0) - (total_equal.cumsum(0) - total_equal)[row]  # 1 for the first equal cost of a row
    taken = ~equal | (rank <= wanted_equal[row])
    return row[taken], column[taken]


def _cheapest_target(cost: Tensor, slots: Tensor, targets: Targets) -> Tensor:
    """For slots (flat over (B, N)) the target of that image with the least cost there, the first on ties."""
    width = cost.shape[1]
    image, column = slots // width, slots % width
    counts = targets.image_index.bincount(minlength=targets.num_images)
    first = (counts.cumsum(0) - counts)[image][:, None]
    member = torch.arange(int(counts.max()), device=cost.device)
    absent = member >= counts[image][:, None]
    target = (first + member).masked_fill_(absent, 0)
    costs = cost[target, column[:, None]].masked_fill_(absent, torch.inf)
    return first[:, 0] + costs.argmin(1)


def _pick(candidates: AnchorAssignment, index: Tensor, target_index: Tensor) -> AnchorAssignment:
    """Some of the candidates, given to new targets."""
    return AnchorAssignment(
        level=candidates.level[index],
        image_index=candidates.image_index[index],
        anchor=candidates.anchor[index],
        row=candidates.row[index],
        column=candidates.column[index],
        target_index=target_index,
    )
