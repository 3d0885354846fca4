"""The criterion of anchor-free heads: what is learned where comes from an assigner, what it costs is said here."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cloverleaf.errors import ConfigError
from cloverleaf.losses.box import iou_loss
from cloverleaf.losses.dense_config import DenseLossConfig, DistillationConfig
from cloverleaf.losses.distillation import Lesson, class_divergence, feature_divergence
from cloverleaf.losses.distribution_focal import distribution_divergence, distribution_focal_loss
from cloverleaf.losses.output import LossOutput
from cloverleaf.losses.varifocal import varifocal_loss
from cloverleaf.ops.boxes import cxcywh_to_xyxy
from cloverleaf.ops.points import cell_middles, distances_to_boxes, expected_distances, level_sizes
from cloverleaf.ops.precision import at_least_float32
from cloverleaf.structures import AidedOutput, DenseOutput, PointAssigner, PointAssignment, Targets

_PUBLISHED_CLASSES = 80  # that the weights of distillation are for


class DenseCriterion(nn.Module):
    """Gold-YOLO's loss (arXiv 2309.11331 and its published implementation) for any assigner of positions.

    VariFocal loss of all class scores, IoU loss of the positives' boxes and, where distances are distributions, the
    distribution focal loss; the last two weighted by what a positive is to score, and all divided by the sum of these
    scores, at least 1. Boxes of a direct branch add their IoU loss for the same positives. An anchor branch
    (anchor-aided training) adds VariFocal and IoU loss of positives of its own. What a teacher says adds divergences.
    Computed in float32 whatever the autocast state.

    The items are "box", "dfl" and "cls", and with a teacher "distill_cls", "distill_dfl" and "distill_feature" as far
    as they are switched on; `total` is their sum times images / `nominal_batch`.

    Args:
        config: gains and options.
        strides: input pixels per cell of each level.
        assigner: who learns what; may be replaced at any time by setting `assigner`.
        aided_assigner: the same for the anchor branch; None for models without one.
        distillation: temperature and weights of what a teacher says.
        reduce: sums a tensor over the processes of a distributed run, so that means are taken over the global batch and
            the gradients equal those of one process; None in a single process.
    """

    def __init__(
        self,
        config: DenseLossConfig,
        *,
        strides: Sequence[int],
        assigner: PointAssigner,
        aided_assigner: PointAssigner | None = None,
        distillation: DistillationConfig | None = None,
        reduce: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.strides = config, tuple(strides)
        self.assigner, self.aided_assigner = assigner, aided_assigner
        self.distillation, self.reduce = distillation or DistillationConfig(), reduce or _unreduced

    def with_assigner(self, assigner: PointAssigner) -> DenseCriterion:
        """The same criterion with another assigner of the anchor-free branch."""
        other = copy.copy(self)
        other.assigner = assigner
        return other

    def without_aid(self) -> DenseCriterion:
        """The same criterion for a head without an anchor branch."""
        other = copy.copy(self)
        other.aided_assigner = None
        return other

    def forward(
        self, raw: DenseOutput, targets: Targets, size_hw: tuple[int, int], lesson: Lesson | None = None
    ) -> LossOutput:
        """Loss of one batch.

        Args:
            raw: output of the head.
            targets: ground truth in input pixels.
            size_hw: network-input size.
            lesson: what a teacher says about the same images.

        Raises:
            ConfigError: there is an assigner for an anchor branch, but no such output, or the other way round.
        """
        if (raw.aided is None) != (self.aided_assigner is None):
            raise ConfigError(
                "the criterion and the model disagree on an anchor branch", "only one of them has it",
                "build the criterion for this form of the model",
            )  # fmt: skip
        with torch.autocast(raw.logits.device.type, enabled=False):
            return self._forward(raw, targets, size_hw, lesson)

    def _forward(
        self, raw: DenseOutput, targets: Targets, size_hw: tuple[int, int], lesson: Lesson | None
    ) -> LossOutput:
        where = (targets, self.strides, size_hw)
        main = _Branch.of_distances(raw, self.assigner, *where)
        branches = [main]
        if raw.aided is not None and self.aided_assigner is not None:
            branches.append(_Branch.of_anchors(raw.aided, self.aided_assigner, *where))
        scores = torch.stack([branch.matches.score.sum() for branch in branches])
        counts = scores.new_tensor([len(main.matches), raw.batch_size])
        *whole, positives, images = self.reduce(torch.cat((scores, counts)))
        sizes = [total.clamp(min=1) for total in whole]  # fewer would blow the loss up; docs/fidelity.md, entry 82

        config, labels = self.config, targets.labels
        cls = torch.stack([branch.cls(labels) / size for branch, size in zip(branches, sizes, strict=True)]).sum()
        box = torch.stack([branch.box(config.iou) / size for branch, size in zip(branches, sizes, strict=True)]).sum()
        items = {"box": config.box * box, "cls": config.cls * cls}
        distances = main.rows(raw.distances)
        if distances.shape[1] > 4:
            dfl = distribution_focal_loss(distances, main.wanted_distances)
            items["dfl"] = config.dfl * (dfl * main.matches.score).sum() / sizes[0]
        if lesson is not None:
            mean = torch.where(whole[0] > 0, 1 / (4 * positives.clamp(min=1)), 0.0)
            items |= self._distil(raw, lesson, distances, main.rows(lesson.raw.distances), mean, images)
        values = torch.stack(list(items.values()))
        reduced = self.reduce(values.detach()).unbind()
        factor = images / config.nominal_batch
        return LossOutput(values.sum() * factor, dict(zip(items, reduced, strict=True)), factor)

    def _distil(
        self, raw: DenseOutput, lesson: Lesson, distances: Tensor, taught: Tensor, mean: Tensor, images: Tensor
    ) -> dict[str, Tensor]:
        """The items of distillation that are switched on.

        Args:
            raw: the student's output.
            lesson: the teacher's.
            distances: ``(n, 4 * R)`` the student's distances at the positives.
            taught: the same of the teacher.
            mean: factor that makes a sum over positives and sides their mean in the global batch.
            images: in the global batch.
        """
        config, options, items = self.config, self.distillation, {}
        if gain := config.cls * options.cls:
            # A sum over images; `total` multiplies everything by images / nominal_batch.
            share = gain * lesson.weight * config.nominal_batch / images
            if options.scale_classes:
                share = share * (raw.logits.shape[-1] / _PUBLISHED_CLASSES)
            items["distill_cls"] = share * class_divergence(raw.logits, lesson.raw.logits, options.temperature)
        if gain := config.dfl * options.dfl:
            divergence = distribution_divergence(distances, taught, options.temperature)
            items["distill_dfl"] = gain * lesson.weight * mean * divergence
        if options.feature and lesson.maps is not None:
            items["distill_feature"] = options.feature * lesson.weight * feature_divergence(*lesson.maps) / images
        return items


@dataclass(frozen=True, slots=True)
class _Branch:
    """Predictions of one branch, what they learn, and the positives in cells, seen from the middle of their cell."""

    logits: Tensor  # (B, P, K)
    matches: PointAssignment
    boxes: tuple[Tensor, ...]  # (n, 4) xyxy each, differentiable: what the branch predicts at the positives
    wanted: Tensor  # (n, 4) xyxy

    @classmethod
    def of_distances(
        cls, raw: DenseOutput, assigner: PointAssigner, targets: Targets, strides: Sequence[int],
        size_hw: tuple[int, int],
    ) -> _Branch:  # fmt: skip
        """The anchor-free branch; with a direct one it has two boxes for every positive."""
        points, stride = _typed(cell_middles(strides, size_hw, device=raw.logits.device), raw.logits)
        with torch.no_grad():
            boxes = distances_to_boxes(expected_distances(raw.distances), points) * stride
            matches = assigner(at_least_float32(raw.logits), boxes, targets, strides, size_hw)
        predicted = [raw.distances] if raw.direct is None else [raw.distances, raw.direct]
        rows = [expected_distances(_rows(distances, matches)) for distances in predicted]
        return cls(
            at_least_float32(raw.logits), matches, tuple(distances_to_boxes(row, row.new_zeros(2)) for row in rows),
            _wanted(targets, matches, points, stride),
        )  # fmt: skip

    @classmethod
    def of_anchors(
        cls, aided: AidedOutput, assigner: PointAssigner, targets: Targets, strides: Sequence[int],
        size_hw: tuple[int, int],
    ) -> _Branch:  # fmt: skip
        """The anchor branch."""
        both = torch.cat(_typed(cell_middles(strides, size_hw, device=aided.logits.device), aided.logits), 1)
        counts = [height * width for height, width in level_sizes(strides, size_hw)]
        anchors = aided.logits.shape[1] // sum(counts)
        both = torch.cat([part.repeat(anchors, 1) for part in both.split(counts)])
        points, stride = both[:, :2], both[:, 2:]
        with torch.no_grad():
            boxes = (cxcywh_to_xyxy(at_least_float32(aided.boxes_cxcywh)) + points.repeat(1, 2)) * stride
            matches = assigner(at_least_float32(aided.logits), boxes, targets, strides, size_hw)
        predicted = cxcywh_to_xyxy(_rows(aided.boxes_cxcywh, matches))
        return cls(
            at_least_float32(aided.logits), matches, (predicted,), _wanted(targets, matches, points, stride)
        )  # fmt: skip

    def cls(self, labels: Tensor) -> Tensor:
        """VariFocal loss of all predictions, summed."""
        matches = self.matches
        score = matches.score.to(self.logits.dtype)
        return varifocal_loss(
            self.logits, matches.image_index, matches.position, labels[matches.target_index], score
        )  # fmt: skip

    def box(self, kind: str) -> Tensor:
        """IoU loss of the positives, weighted by what they score, summed."""
        losses = [iou_loss(boxes, self.wanted, kind) for boxes in self.boxes]  # type: ignore[arg-type]
        return torch.stack([(loss * self.matches.score).sum() for loss in losses]).sum()

    def rows(self, values: Tensor) -> Tensor:
        """``(B, P, C)`` to ``(n, C)`` of the positives, at least float32."""
        return _rows(values, self.matches)

    @property
    def wanted_distances(self) -> Tensor:
        """``(n, 4)`` to left, top, right and bottom."""
        return torch.cat((-self.wanted[:, :2], self.wanted[:, 2:]), 1)


def _rows(values: Tensor, matches: PointAssignment) -> Tensor:
    index = matches.image_index * values.shape[1] + matches.position
    return at_least_float32(values.flatten(0, 1).index_select(0, index))


def _typed(parts: tuple[Tensor, Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(like.dtype, torch.float32)
    return parts[0].to(dtype), parts[1].to(dtype)


def _wanted(targets: Targets, matches: PointAssignment, points: Tensor, stride: Tensor) -> Tensor:
    """Boxes of the matched objects ``(n, 4)`` in cells, seen from the middle of the matched cell."""
    boxes = targets.boxes_xyxy.to(points.dtype)[matches.target_index] / stride[matches.position]
    return boxes - points[matches.position].repeat(1, 2)


def _unreduced(value: Tensor) -> Tensor:
    return value
