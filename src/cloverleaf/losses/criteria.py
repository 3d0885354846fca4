"""The criterion of anchor-based heads: what is learned where comes from an assigner, what it costs is said here."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cloverleaf.errors import ConfigError
from cloverleaf.losses.box import ciou_loss
from cloverleaf.losses.classify import binary_cross_entropy, smooth_one_hot
from cloverleaf.losses.config import LossConfig
from cloverleaf.ops.boxes import cxcywh_to_xyxy, xyxy_to_cxcywh
from cloverleaf.ops.cells import decode_in_cells, flat_index, gather_cells
from cloverleaf.structures import AnchorAssigner, AnchorAssignment, AnchorOutput, Targets

_BALANCE_3 = (4.0, 1.0, 0.4)
_BALANCE_N = (4.0, 1.0, 0.25, 0.06, 0.02)
_BALANCE_DECAY = 0.9999
_BALANCE_STRIDE = 16  # the level whose weight stays 1


@dataclass(frozen=True, slots=True)
class LossOutput:
    """The loss of a batch.

    Attributes:
        total: scalar to minimise: the sum of the items times the batch size (published: gradients add up over images).
            In a distributed run it is this process's share: the shares of all processes add up to the total.
        items: the detached, gain-weighted parts "box", "obj" and "cls", not multiplied by the batch size; of the whole
            batch in a distributed run.
    """

    total: Tensor
    items: dict[str, Tensor]


class AnchorCriterion(nn.Module):
    """YOLOv7's loss (arXiv 2207.02696 and its published implementation) for any anchor assigner.

    Per level: CIoU loss of the matched cells (mean), cross-entropy of their classes (mean, left out for one class) and
    cross-entropy of the objectness of all cells (mean, weighted by level), whose target is the detached CIoU of the
    matched prediction; where several matches share a cell the last one counts. Computed in float32 whatever the
    autocast state.

    Args:
        config: gains and options.
        anchors_px: ``(L, A, 2)`` (width, height) in input pixels.
        strides: input pixels per cell of each level.
        num_classes: K.
        image_size: training size in pixels, by which the objectness gain is scaled.
        assigner: who learns what; may be replaced at any time by setting `assigner`.
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
        image_size: int,
        assigner: AnchorAssigner,
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.strides, self.num_classes = config, tuple(strides), num_classes
        self.assigner, self.reduce = assigner, reduce or _unreduced
        num_levels = len(self.strides)
        if config.autobalance and _BALANCE_STRIDE not in self.strides:
            raise ConfigError(
                what="loss.autobalance does not fit this model",
                why=f"it keeps the weight of the stride-{_BALANCE_STRIDE} level and the strides are {self.strides}",
                fix="set loss.autobalance=false",
            )
        share = 3 / num_levels
        scales = (share, share * (image_size / 640) ** 2, share * num_classes / 80) if config.scale_gains else (1, 1, 1)
        gains = (config.box, config.obj, config.cls)
        self.box_gain, self.obj_gain, self.cls_gain = (gain * scale for gain, scale in zip(gains, scales, strict=True))
        balance = _BALANCE_3 if num_levels == 3 else _BALANCE_N[:num_levels]
        self.register_buffer("anchors_px", anchors_px.detach().float().clone(), persistent=False)
        self.register_buffer("balance", torch.tensor(balance))

    def with_assigner(self, assigner: AnchorAssigner) -> AnchorCriterion:
        """The same criterion, sharing its state, with another assigner (validation always uses the plain one)."""
        other = copy.copy(self)
        other.assigner = assigner
        return other

    def forward(self, raw: AnchorOutput, targets: Targets, size_hw: tuple[int, int]) -> LossOutput:
        """Loss of one batch.

        Args:
            raw: logits; the auxiliary ones are not used.
            targets: ground truth in input pixels.
            size_hw: network-input size.
        """
        levels = raw.levels
        if self.balance.device != levels[0].device:
            self.to(levels[0].device)
        with torch.autocast(levels[0].device.type, enabled=False):
            matches = self.assigner(levels, targets, self.anchors_px, self.strides, size_hw)
            return self.loss_of(levels, targets, matches)

    def loss_of(self, levels: Sequence[Tensor], targets: Targets, matches: AnchorAssignment) -> LossOutput:
        """Loss of given matches: the part after the assigner."""
        counts = matches.level.bincount(minlength=len(levels))
        batch_size = levels[0].shape[0]
        *global_counts, images = self.reduce(torch.cat((counts, counts.new_tensor([batch_size])))).unbind()
        share = torch.stack(global_counts).clamp(min=1).float().reciprocal()[matches.level]  # sums become level means
        predicted = gather_cells(levels, matches, counts.tolist())
        loss, ciou = ciou_loss(*self._boxes_in_cells(predicted, targets, matches))
        box = (loss * share).sum() * self.box_gain

        if self.num_classes > 1:
            wanted = smooth_one_hot(targets.labels[matches.target_index], self.num_classes, self.config.label_smoothing)
            entropy = self._entropy(predicted[:, 5:], wanted, self.config.cls_pw)
            cls = (entropy.mean(1) * share).sum() * self.cls_gain
        else:
            cls = box.new_zeros(())

        obj = self._objectness(levels, matches, ciou.detach(), batch_size / images) * self.obj_gain
        items = self.reduce(torch.stack((box, obj, cls)).detach()).unbind()
        return LossOutput((box + obj + cls) * images, dict(zip(("box", "obj", "cls"), items, strict=True)))

    def _entropy(self, logits: Tensor, targets: Tensor, positive_weight: float) -> Tensor:
        return binary_cross_entropy(logits, targets, positive_weight=positive_weight, gamma=self.config.fl_gamma)

    def _boxes_in_cells(self, predicted: Tensor, targets: Targets, matches: AnchorAssignment) -> tuple[Tensor, Tensor]:
        """Predicted and wanted corners ``(n, 4)`` in units of the level's cells, from the matched cell's corner."""
        strides = predicted.new_tensor(self.strides)
        boxes = decode_in_cells(predicted, matches, self.anchors_px, strides)
        wanted = xyxy_to_cxcywh(targets.boxes_xyxy)[matches.target_index].float() / strides[matches.level][:, None]
        cell = torch.stack((matches.column, matches.row), -1)
        wanted = torch.cat((wanted[:, :2] - cell, wanted[:, 2:]), -1)
        return cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(wanted)

    def _objectness(self, levels: Sequence[Tensor], matches: AnchorAssignment, ciou: Tensor, part: Tensor) -> Tensor:
        """Mean cross-entropy per level, weighted by the level balance and summed; `part` of the global mean."""
        sizes = [level[..., 4].numel() for level in levels]
        logits = torch.cat([level[..., 4].reshape(-1) for level in levels]).float()
        ratio = self.config.objectness_iou_ratio
        value = (1 - ratio) + ratio * ciou.clamp(min=0)
        target = _last_value(flat_index(levels, matches), value, sum(sizes))
        losses = self._entropy(logits, target, self.config.obj_pw).split(sizes)
        means = torch.stack([loss.mean() for loss in losses]) * part
        total = (means * self.balance.clone()).sum()  # the buffer may change before the gradient is asked for
        if self.config.autobalance and self.training:
            self._rebalance(self.reduce(means.detach()))
        return total

    def _rebalance(self, means: Tensor) -> None:
        balance = self.balance * _BALANCE_DECAY + (1 - _BALANCE_DECAY) / means
        self.balance.copy_(balance / balance[self.strides.index(_BALANCE_STRIDE)])


def _unreduced(value: Tensor) -> Tensor:
    return value


def _last_value(cell: Tensor, value: Tensor, size: int) -> Tensor:
    """``(size,)`` zeros with ``value`` at ``cell``; of equal cells the last one counts, on every device."""
    order = cell.argsort(stable=True)
    cell, value = cell[order], value[order]
    last = torch.ones_like(cell, dtype=torch.bool)
    last[:-1] = cell[1:] != cell[:-1]
    return value.new_zeros(size).scatter_(0, cell[last], value[last])
