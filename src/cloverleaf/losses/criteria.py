"""The criterion of anchor-based heads: what is learned where comes from an assigner, what it costs is said here."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cloverleaf.errors import ConfigError
from cloverleaf.losses.anchor_gains import gain_scales, level_balance
from cloverleaf.losses.box import ciou_loss
from cloverleaf.losses.classify import binary_cross_entropy, smooth_one_hot
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.objectness import coarse_bound, last_value
from cloverleaf.losses.output import LossOutput
from cloverleaf.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from cloverleaf.ops.cells import (
    anchors_in_cells,
    binned_sides,
    box_channels,
    decode_in_cells,
    flat_index,
    gather_cells,
)
from cloverleaf.ops.sigmoid_bin import sigmoid_bin_loss
from cloverleaf.structures import AnchorAssigner, AnchorAssignment, AnchorOutput, AuxiliaryAssigner, Targets

_BALANCE_DECAY = 0.9999
_BALANCE_STRIDE = 16  # the level whose weight stays 1


class AnchorCriterion(nn.Module):
    """The loss of YOLOv7 (arXiv 2207.02696) and YOLOR (2105.04206), as published, for any anchor assigner.

    Per level: CIoU loss of the matched cells (mean), cross-entropy of their classes (mean, left out for one class) and
    cross-entropy of the objectness of all cells (mean, weighted by level), whose target is the detached CIoU of the
    matched prediction; where several matches share a cell the last one counts. An auxiliary head adds the same loss
    times `auxiliary_gain`. Computed in float32 whatever the autocast state. The items are "box", "obj" and "cls";
    `total` is their sum times the batch size. The two differ in the gains that follow from the model and in the weights
    of the levels (`config.gains`, see `cloverleaf.losses.anchor_gains`).

    Args:
        config: gains and options.
        anchors_px: ``(L, A, 2)`` (width, height) in input pixels.
        strides: input pixels per cell of each level.
        num_classes: K.
        bins: of a head that classifies the sides of boxes (SigmoidBin), or 0. The bin losses of width and height are
            added to the box loss of each match.
        image_size: training size in pixels, by which YOLOv7's objectness gain is scaled.
        assigner: who learns what; may be replaced at any time by setting `assigner`.
        auxiliary: what the auxiliary head learns (deep supervision, section 4.2 of the paper); None for models without
            one, or to leave it out.
        reduce: sums a tensor over the processes of a distributed run, so that means are taken over the global batch and
            the gradients equal those of one process; None in a single process.
    """

    anchors_px: Tensor
    balance: Tensor

    def __init__(
        self,
        config: LossConfig,
        *,
        anchors_px: Tensor,
        strides: Sequence[int],
        num_classes: int,
        bins: int = 0,
        image_size: int,
        assigner: AnchorAssigner,
        auxiliary: AuxiliaryAssigner | None = None,
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.strides, self.num_classes, self.bins = config, tuple(strides), num_classes, bins
        self.assigner, self.auxiliary, self.reduce = assigner, auxiliary, reduce or _unreduced
        num_levels = len(self.strides)
        if config.autobalance and _BALANCE_STRIDE not in self.strides:
            raise ConfigError(
                what="loss.autobalance does not fit this model",
                why=f"it keeps the weight of the stride-{_BALANCE_STRIDE} level and the strides are {self.strides}",
                fix="set loss.autobalance=false",
            )
        scales = (1.0, 1.0, 1.0)
        if config.scale_gains:
            scales = gain_scales(config.gains, num_levels=num_levels, num_classes=num_classes, image_size=image_size)
        gains = (config.box, config.obj, config.cls)
        self.box_gain, self.obj_gain, self.cls_gain = (gain * scale for gain, scale in zip(gains, scales, strict=True))
        self.register_buffer("anchors_px", anchors_px.detach().float().clone(), persistent=False)
        self.register_buffer("balance", torch.tensor(level_balance(config.gains, num_levels)))

    def with_assigner(self, assigner: AnchorAssigner, auxiliary: AuxiliaryAssigner | None = None) -> AnchorCriterion:
        """The same criterion, sharing its state, with other assigners.

        Without an auxiliary one only the lead is judged, as in the published validation loss (with the plain assigner).
        """
        other = copy.copy(self)
        other.assigner, other.auxiliary = assigner, auxiliary
        return other

    def forward(self, raw: AnchorOutput, targets: Targets, size_hw: tuple[int, int]) -> LossOutput:
        """Loss of one batch.

        Args:
            raw: logits of the lead head and, if there is an auxiliary assigner, of the auxiliary head.
            targets: ground truth in input pixels.
            size_hw: network-input size.

        Raises:
            ConfigError: there is an auxiliary assigner, but no auxiliary output.
        """
        device = raw.levels[0].device
        if self.balance.device != device:
            self.to(device)
        with torch.autocast(device.type, enabled=False):
            where = (targets, self.anchors_px, self.strides, size_hw)
            lead = self.assigner(raw.levels, *where)
            heads = [_Head(raw.levels, lead)]
            if self.auxiliary is not None:
                if raw.auxiliary is None:
                    raise ConfigError(
                        what="the criterion has an auxiliary assigner and the model gave no auxiliary output",
                        why="a model in deploy form has no auxiliary head",
                        fix="train the training form, or build the criterion without an auxiliary assigner",
                    )
                matches = self.auxiliary(raw, lead, *where)
                config = self.config
                heads.append(_Head(raw.auxiliary, matches, config.auxiliary_gain, config.auxiliary_bound))
            return self._loss_of(heads, targets)

    def _loss_of(self, heads: Sequence[_Head], targets: Targets) -> LossOutput:
        """Loss of given matches: the part after the assigners."""
        batch_size, num_levels = heads[0].levels[0].shape[0], len(self.strides)
        counts = torch.stack([head.matches.level.bincount(minlength=num_levels) for head in heads])
        total = self.reduce(torch.cat((counts.flatten(), counts.new_tensor([batch_size]))))
        images, weights = total[-1], total[:-1].view_as(counts).clamp(min=1).float().reciprocal()  # sums become means
        losses = [
            self._losses(head, targets, on_level, weight)
            for head, on_level, weight in zip(heads, counts.tolist(), weights, strict=True)
        ]
        balance = self.balance.clone()  # the buffer may change before the gradient is asked for
        means = [loss.objectness * (batch_size / images) for loss in losses]
        parts = [
            torch.stack((loss.box * self.box_gain, (mean * balance).sum() * self.obj_gain, loss.cls * self.cls_gain))
            for loss, mean in zip(losses, means, strict=True)
        ]
        whole = torch.stack([part * head.gain for part, head in zip(parts, heads, strict=True)]).sum(0)
        if self.config.autobalance and self.training:
            self._rebalance(self.reduce(means[0].detach()))
        items = self.reduce(whole.detach()).unbind()
        return LossOutput(whole.sum() * images, dict(zip(("box", "obj", "cls"), items, strict=True)), images)

    def _losses(self, head: _Head, targets: Targets, counts: Sequence[int], weights: Tensor) -> _HeadLoss:
        """Losses of one head, without gains.

        Args:
            head: predictions and what they learn.
            targets: ground truth.
            counts: matches on each level.
            weights: ``(L,)`` one over the matches on each level, of all processes.
        """
        matches, weight = head.matches, weights[head.matches.level]
        predicted = gather_cells(head.levels, matches, counts)
        wanted = self._wanted_in_cells(targets, matches)
        loss, ciou = self._box_loss(predicted, wanted, matches)
        box = (loss * weight).sum()

        if self.num_classes > 1:
            classes = targets.labels[matches.target_index]
            one_hot = smooth_one_hot(classes, self.num_classes, self.config.label_smoothing)
            cls = (
                self._entropy(predicted[:, box_channels(self.bins) + 1 :], one_hot, self.config.cls_pw).mean(1) * weight
            ).sum()
        else:
            cls = box.new_zeros(())

        ratio = self.config.objectness_iou_ratio
        value = (1 - ratio) + ratio * ciou.detach().clamp(min=0)
        if head.bounded:
            value = torch.minimum(value, coarse_bound(wanted[:, :2]))
        return _HeadLoss(box, cls, self._objectness(head.levels, matches, value))

    def _entropy(self, logits: Tensor, targets: Tensor, positive_weight: float) -> Tensor:
        return binary_cross_entropy(logits, targets, positive_weight=positive_weight, gamma=self.config.fl_gamma)

    def _wanted_in_cells(self, targets: Targets, matches: AnchorAssignment) -> Tensor:
        """Centre and size ``(n, 4)`` of the matched objects in cells of the level, from the matched cell's corner."""
        boxes = xyxy_to_cxcywh(targets.boxes_xyxy).float()[matches.target_index]
        wanted = boxes / boxes.new_tensor(self.strides)[matches.level][:, None]
        cell = torch.stack((matches.column, matches.row), -1)
        return torch.cat((wanted[:, :2] - cell, wanted[:, 2:]), -1)

    def _box_loss(self, predicted: Tensor, wanted: Tensor, matches: AnchorAssignment) -> tuple[Tensor, Tensor]:
        """Box loss and CIoU ``(n,)`` of raw predictions ``(n, C)`` and wanted boxes ``(n, 4)`` in cells."""
        strides = predicted.new_tensor(self.strides)
        boxes = decode_in_cells(predicted, matches, self.anchors_px, strides, self.bins)
        if not self.bins:
            return ciou_loss(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(wanted))
        anchors = anchors_in_cells(matches, self.anchors_px, strides)
        bin_loss, sides = sigmoid_bin_loss(binned_sides(predicted, self.bins), wanted[:, 2:] / anchors)
        boxes = torch.cat((boxes[:, :2], sides * anchors), -1)
        loss, ciou = ciou_loss(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(wanted))
        return loss + bin_loss.sum(-1), ciou

    def _objectness(self, levels: Sequence[Tensor], matches: AnchorAssignment, value: Tensor) -> Tensor:
        """``(L,)`` mean cross-entropy of all cells of each level; matched ones learn ``value``, the others 0."""
        logits = [level[..., box_channels(self.bins)].reshape(-1) for level in levels]
        sizes = [len(of_level) for of_level in logits]
        target = last_value(flat_index(levels, matches), value, sum(sizes))
        losses = self._entropy(torch.cat(logits).float(), target, self.config.obj_pw).split(sizes)
        return torch.stack([loss.mean() for loss in losses])

    def _rebalance(self, means: Tensor) -> None:
        balance = self.balance * _BALANCE_DECAY + (1 - _BALANCE_DECAY) / means
        self.balance.copy_(balance / balance[self.strides.index(_BALANCE_STRIDE)])


@dataclass(frozen=True, slots=True)
class _Head:
    """Raw output of one head, and what it learns."""

    levels: Sequence[Tensor]
    matches: AnchorAssignment
    gain: float = 1.0
    bounded: bool = False  # the objectness of its labels is limited by `coarse_bound`


@dataclass(frozen=True, slots=True)
class _HeadLoss:
    """Losses of one head before gains: scalars, and the objectness per level."""

    box: Tensor
    cls: Tensor
    objectness: Tensor


def _unreduced(value: Tensor) -> Tensor:
    return value
