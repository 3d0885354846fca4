"""SimOTA: of all candidates each object takes the few that the network already predicts best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cloverleaf.assigners.anchor_ratio import CellTies, find_candidates
from cloverleaf.assigners.pair_costs import PairCosts, Slots, smallest
from cloverleaf.assigners.points import DEFAULT_PAIRS, chunks
from cloverleaf.ops.boxes import cxcywh_to_xyxy
from cloverleaf.ops.cells import box_channels, decode_in_cells, gather_cells
from cloverleaf.structures import AnchorAssignment, Targets


@dataclass(frozen=True, slots=True)
class SimOtaAssigner:
    """Dynamic-k matching of YOLOv7 (arXiv 2207.02696, after YOLOX, arXiv 2107.08430), without any loop over images.

    Candidates come from `find_candidates`. Every object may take any candidate of its image, whichever object proposed
    it: k of them with the least cost, where k is the sum of its `top_candidates` best IoUs, at least 1. A candidate
    wanted by several objects goes to the object of the image whose cost is least there. Ties go to the first candidate
    and to the first object, on every device.

    Letters: T targets of the batch, N the most candidates of one image, B images, K classes. Beside (B, N, K) tensors
    of the candidates, memory is a few tensors of `max_pairs` values: the T x N pairs are gone through in chunks, which
    change nothing in the result.

    Attributes:
        anchor_t: see `AnchorRatioAssigner`.
        reach: see `AnchorRatioAssigner`; 0.5 for lead heads, 1.0 for auxiliary ones.
        top_candidates: how many best IoUs are summed for k.
        bins: of a head that classifies the sides of boxes (SigmoidBin); 0 where they are regressed.
        cell_ties: see `AnchorRatioAssigner`.
        max_pairs: how many (object, candidate) pairs are looked at together; at least those of one object are.
        published_rectangular: scale the boxes by the image height on both axes, as the published code does. Wrong for
            inputs that are not square, and only for comparison with that code.
    """

    anchor_t: float = 4.0
    reach: float = 0.5
    top_candidates: int = 10
    bins: int = 0
    cell_ties: CellTies = "both"
    max_pairs: int = DEFAULT_PAIRS
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
        candidates = find_candidates(
            targets, anchors_px, grids_hw, size_hw,
            anchor_t=self.anchor_t, reach=self.reach, cell_ties=self.cell_ties,
        )  # fmt: skip
        if not len(candidates):
            return candidates
        counts = candidates.level.bincount(minlength=len(levels)).tolist()
        raw = gather_cells(levels, candidates, counts)  # (n, C)
        boxes = self._predicted_boxes(raw, candidates, anchors_px, raw.new_tensor(strides))
        slots = Slots.build(candidates.image_index, targets.num_images)
        wanted_xyxy = targets.boxes_xyxy.float()
        if self.published_rectangular:
            wanted_xyxy = wanted_xyxy * wanted_xyxy.new_tensor([size_hw[0] / size_hw[1], 1.0] * 2)
        costs = PairCosts.build(boxes, raw[:, box_channels(self.bins) :], slots, wanted_xyxy, targets)

        taker = self._match(costs, slots, targets)  # (B * N,), -1 where nobody takes the slot
        slot = (taker >= 0).nonzero()[:, 0]
        picked = slots.candidate.flatten()[slot]
        order = candidates.level[picked].argsort(stable=True)
        return _pick(candidates, picked[order], taker[slot[order]])

    def _predicted_boxes(self, raw: Tensor, cells: AnchorAssignment, anchors_px: Tensor, strides: Tensor) -> Tensor:
        """Boxes predicted by cells: ``(n, C)`` logits to ``(n, 4)`` corners in input pixels."""
        boxes = decode_in_cells(raw, cells, anchors_px, strides, self.bins)
        boxes[:, :2] += torch.stack((cells.column, cells.row), -1)
        return cxcywh_to_xyxy(boxes * strides[cells.level][:, None])

    def _match(self, costs: PairCosts, slots: Slots, targets: Targets) -> Tensor:
        """The target that takes each slot, ``(B * N,)``, -1 for none."""
        parts = [self._choose(costs, *part) for part in chunks(len(targets), slots.width, self.max_pairs)]
        target, column = (torch.cat(part) for part in zip(*parts, strict=True))
        slot = targets.image_index[target] * slots.width + column
        real = ~slots.empty.flatten()[slot]
        target, slot = target[real], slot[real]

        taker = torch.full((slots.empty.numel(),), -1, device=slot.device)
        taker[slot] = target
        disputed = (slot.bincount(minlength=len(taker)) > 1).nonzero()[:, 0]
        most = int(targets.image_index.bincount().max())
        for first, last in chunks(len(disputed), most, self.max_pairs):
            taker[disputed[first:last]] = _cheapest_target(costs, disputed[first:last], slots.width, targets)
        return taker

    def _choose(self, costs: PairCosts, first: int, last: int) -> tuple[Tensor, Tensor]:
        """(target, column) of the least costs of the targets from ``first`` to before ``last``."""
        iou, cost = costs.rows(first, last)
        top = min(self.top_candidates, cost.shape[1])
        k = iou.topk(top, dim=1, sorted=False).values.sum(1).long().clamp_(min=1)
        row, column = smallest(cost, k, top)
        return row + first, column


def _cheapest_target(costs: PairCosts, slots: Tensor, width: int, targets: Targets) -> Tensor:
    """For slots (flat over (B, N)) the target of that image with the least cost there, the first on ties."""
    image = slots // width
    counts = targets.image_index.bincount(minlength=targets.num_images)
    first = (counts.cumsum(0) - counts)[image][:, None]
    member = torch.arange(int(counts.max()), device=slots.device)
    absent = member >= counts[image][:, None]
    target = (first + member).masked_fill_(absent, 0)
    return first[:, 0] + costs.pairs(target, slots[:, None]).masked_fill_(absent, torch.inf).argmin(1)


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
