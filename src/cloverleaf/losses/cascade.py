"""The losses of Cascade Mask R-CNN (arXiv 1712.00726): those of Mask R-CNN in every stage."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol

import torch
from torch import Tensor
from torchvision.models.detection.roi_heads import fastrcnn_loss, maskrcnn_loss

from cloverleaf.losses.held_head import HeldHeadCriterion
from cloverleaf.losses.output import LossOutput
from cloverleaf.losses.regions import RegionHead, per_image, proposal_losses
from cloverleaf.losses.segmentation_config import CascadeLossConfig
from cloverleaf.losses.shares import weighted_by_images
from cloverleaf.ops.iou import aligned_iou
from cloverleaf.structures import RegionOutput, Targets

Truth = list[dict[str, Tensor]]
_GIOU_GAIN = 10.0  # published with RevCol


class CascadeHead(RegionHead, Protocol):
    """What the criterion needs of a head; see `cloverleaf.heads.cascade_mask_rcnn.CascadeMaskRcnnHead`."""

    stages: Any

    def read(
        self, stage: int, maps: OrderedDict[str, Tensor], regions: list[Tensor], size_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Logits and deltas of the regions of all images."""

    def decoded(self, stage: int, deltas: Tensor, regions: list[Tensor], classes: Tensor) -> Tensor:
        """Boxes that a stage makes of regions."""

    def likeliest(self, logits: Tensor) -> Tensor:
        """The most likely object of each region."""

    def refined(
        self, stage: int, deltas: Tensor, regions: list[Tensor], classes: Tensor, size_hw: tuple[int, int]
    ) -> list[Tensor]:
        """The regions of the next stage."""


class CascadeCriterion(HeldHeadCriterion[CascadeLossConfig, CascadeHead]):
    """Objectness and boxes of the region proposals; then classes, boxes and masks of each stage, weighted by stage.

    Every stage samples from the regions that the one before it refined and from the true boxes, and what overlaps an
    object by the stage's own IoU is positive. True boxes are not refined further (docs/fidelity.md, entry 145). Classes
    learn by cross-entropy; boxes by 1 - GIoU (arXiv 1902.09630) of the decoded boxes or by smooth L1 of the deltas,
    summed over the positives and divided by the number of sampled regions; masks by binary cross-entropy.

    Samples are drawn from PyTorch's generator, so equal seeds give equal losses. Computed in float32 whatever the
    autocast state. The total is the sum of the items times the number of images; items are summed over stages. In a
    distributed run each process takes its own means.
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
        head, gains = self.head, self.config
        with torch.autocast(raw.maps[0].device.type, enabled=False):
            truth = per_image(targets, size_hw)
            objectness, proposal = proposal_losses(head, raw, truth)
            maps = head.named_maps(raw)
            regions = head.proposals(raw, size_hw, training=True)
            stages = []
            for stage, weight in enumerate(gains.stage_weights):
                losses, regions = self._stage(stage, maps, regions, truth, size_hw)
                stages.append(losses * weight)
            of_class, box, mask = torch.stack(stages).sum(0)
        default = _GIOU_GAIN if gains.box_loss == "giou" else 1.0
        parts = {
            "objectness": objectness * gains.objectness,
            "proposal": proposal * gains.proposal,
            "cls": of_class * gains.cls,
            "box": box * (default if gains.box is None else gains.box),
            "mask": mask * gains.mask,
        }
        return weighted_by_images(parts, raw.batch_size, self.reduce)

    def _stage(
        self,
        stage: int,
        maps: OrderedDict[str, Tensor],
        regions: list[Tensor],
        truth: Truth,
        size_hw: tuple[int, int],
    ) -> tuple[Tensor, list[Tensor]]:
        """Losses ``(3,)`` of class, box and mask, and the regions of the next stage."""
        head = self.head
        heads = head.stages[stage]
        regions, matched, labels, wanted = heads.select_training_samples(regions, truth)
        logits, deltas = head.read(stage, maps, regions, size_hw)
        of_class, box = fastrcnn_loss(logits, deltas, labels, wanted)
        flat = torch.cat(labels)
        if self.config.box_loss == "giou":
            of_positives = zip(truth, matched, labels, strict=True)
            objects = torch.cat([of_image["boxes"][index[label > 0]] for of_image, index, label in of_positives])
            found = head.decoded(stage, deltas, regions, flat)[flat > 0]
            box = (1 - aligned_iou(found, objects, "giou")).sum() / len(flat)
        mask = _mask_loss(heads, maps, regions, labels, matched, truth, size_hw)
        classes = torch.where(flat > 0, flat, head.likeliest(logits))
        refined = head.refined(stage, deltas, regions, classes, size_hw)
        is_truth = [(deltas_to_truth == 0).all(1) for deltas_to_truth in wanted]
        kept = [boxes[~drop] for boxes, drop in zip(refined, is_truth, strict=True)]
        return torch.stack((of_class, box, mask)), kept


def _mask_loss(
    heads: Any,
    maps: OrderedDict[str, Tensor],
    regions: list[Tensor],
    labels: list[Tensor],
    matched: list[Tensor],
    truth: Truth,
    size_hw: tuple[int, int],
) -> Tensor:
    """Scalar: mean cross-entropy of the masks of positive regions; 0 where the stage has no head for masks."""
    if heads.mask_head is None:
        return maps["0"].new_zeros(())
    positive = [label > 0 for label in labels]
    chosen = [boxes[keep] for boxes, keep in zip(regions, positive, strict=True)]
    index = [of_image[keep] for of_image, keep in zip(matched, positive, strict=True)]
    pooled = heads.mask_roi_pool(maps, chosen, [size_hw] * len(chosen))
    logits = heads.mask_predictor(heads.mask_head(pooled))
    return maskrcnn_loss(logits, chosen, [t["masks"] for t in truth], [t["labels"] for t in truth], index)
