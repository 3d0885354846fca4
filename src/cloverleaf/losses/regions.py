"""The losses of Mask R-CNN (arXiv 1703.06870), computed by torchvision from raw output and flat targets."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any, Protocol

import torch
from torch import Tensor

from cloverleaf.errors import ConfigError
from cloverleaf.losses.held_head import HeldHeadCriterion
from cloverleaf.losses.output import LossOutput
from cloverleaf.losses.segmentation_config import RegionLossConfig
from cloverleaf.losses.shares import weighted_by_images
from cloverleaf.structures import RegionOutput, Targets


class RegionHead(Protocol):
    """What criteria need of a region-based head; see `cloverleaf.heads.regions.RegionHead`."""

    rpn: Any

    def anchors(self, raw: RegionOutput) -> Tensor:
        """``(N, 4)`` xyxy in input pixels."""

    def rows(self, raw: RegionOutput) -> tuple[Tensor, Tensor]:
        """Objectness ``(B, N)`` and deltas ``(B, N, 4)``."""

    def proposals(self, raw: RegionOutput, size_hw: tuple[int, int], *, training: bool) -> list[Tensor]:
        """Regions of each image, without gradient."""

    def named_maps(self, raw: RegionOutput) -> OrderedDict[str, Tensor]:
        """The maps that features of regions are cut from."""


class OneStageHead(RegionHead, Protocol):
    """What the criterion of Mask R-CNN needs; see `cloverleaf.heads.mask_rcnn.MaskRcnnHead`."""

    roi_heads: Any


class RegionCriterion(HeldHeadCriterion[RegionLossConfig, OneStageHead]):
    """Mask R-CNN's loss: objectness and boxes of the region proposals, then classes, boxes and masks of regions.

    Everything as torchvision computes it: cross-entropy of sampled anchors and of sampled regions, smooth L1 of the
    positive ones' boxes, binary cross-entropy of the 28x28 masks of the right class. Which anchors and regions are
    sampled is drawn from PyTorch's generator, so equal seeds give equal losses. Computed in float32 whatever the
    autocast state. The total is the sum of the items times the number of images. In a distributed run each process
    takes its own means.
    """

    def forward(self, raw: RegionOutput, targets: Targets, size_hw: tuple[int, int]) -> LossOutput:
        """Loss of one batch.

        Args:
            raw: output of the head.
            targets: ground truth in input pixels, with masks of the size of the input.
            size_hw: network-input size.

        Raises:
            ConfigError: the targets have no masks.
        """
        head = self.head
        with torch.autocast(raw.maps[0].device.type, enabled=False):
            truth = per_image(targets, size_hw)
            objectness, proposal = proposal_losses(head, raw, truth)
            heads = copy.copy(head.roi_heads)  # shares all weights; training is this call's mode, whatever the model's
            heads.training = True
            regions = head.proposals(raw, size_hw, training=True)
            _, of_regions = heads(head.named_maps(raw), regions, [size_hw] * raw.batch_size, truth)
        gains = self.config
        parts = {
            "objectness": objectness * gains.objectness,
            "proposal": proposal * gains.proposal,
            "cls": of_regions["loss_classifier"] * gains.cls,
            "box": of_regions["loss_box_reg"] * gains.box,
            "mask": of_regions["loss_mask"] * gains.mask,
        }
        return weighted_by_images(parts, raw.batch_size, self.reduce)


def proposal_losses(head: RegionHead, raw: RegionOutput, truth: list[dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """The two losses of the region proposals: cross-entropy of sampled anchors, smooth L1 of the positive ones' boxes.

    Args:
        head: whose proposals they are.
        raw: its output.
        truth: of `per_image`.
    """
    objectness, deltas = head.rows(raw)
    anchors = [head.anchors(raw)] * raw.batch_size
    labels, boxes = head.rpn.assign_targets_to_anchors(anchors, truth)
    wanted = head.rpn.box_coder.encode(boxes, anchors)
    return head.rpn.compute_loss(objectness, deltas.flatten(0, 1), labels, wanted)


def per_image(targets: Targets, size_hw: tuple[int, int]) -> list[dict[str, Tensor]]:
    """Flat targets as torchvision wants them: per image its boxes, labels counted from 1, and masks.

    Objects without width or height are left out: their box cannot be expressed.

    Raises:
        ConfigError: there are no masks, or of another shape than ``size_hw``.
    """
    if targets.masks is None:
        raise ConfigError(
            "these targets have no masks", "this model learns outlines of objects",
            "use a dataset with outlines (polygons or RLE), or a model for --task detect",
        )  # fmt: skip
    if tuple(targets.masks.shape[1:]) != size_hw and len(targets):
        raise ConfigError(
            f"masks of size {tuple(targets.masks.shape[1:])} do not fit images of size {size_hw}",
            "they must have the size of the network input",
            "make them in that size",
        )
    boxes = targets.boxes_xyxy.float()
    valid = (boxes[:, 2:] > boxes[:, :2]).all(1)
    counts = targets.image_index[valid].bincount(minlength=targets.num_images).tolist()
    fields = {"boxes": boxes[valid], "labels": targets.labels[valid] + 1, "masks": targets.masks[valid]}
    columns = [value.split(counts) for value in fields.values()]
    return [dict(zip(fields, row, strict=True)) for row in zip(*columns, strict=True)]
