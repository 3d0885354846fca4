"""The loss of UPerNet (arXiv 1807.10221): the class of every pixel, twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from cloverleaf.losses.held_head import HeldHeadCriterion
from cloverleaf.losses.output import LossOutput
from cloverleaf.losses.segmentation_config import PixelLossConfig
from cloverleaf.losses.semantic import mean_cross_entropy, pixel_labels
from cloverleaf.losses.shares import weighted_by_images
from cloverleaf.structures import PixelOutput, Targets


class PixelCriterion(HeldHeadCriterion[PixelLossConfig, Any]):
    """Mean cross-entropy of logits brought to the size of the input, pixels labelled 255 left out.

    Computed in float32 whatever the autocast state. The total is the sum of the items times the number of images. In a
    distributed run each process takes its own means.
    """

    def forward(self, raw: PixelOutput, targets: Targets, size_hw: tuple[int, int]) -> LossOutput:
        """Loss of one batch: item `main` and, with an auxiliary head, item `auxiliary`.

        Args:
            raw: output of the head.
            targets: ground truth; only ``semantic`` is read.
            size_hw: network-input size.

        Raises:
            ConfigError: the targets have no label for every pixel.
        """
        labels, gains = pixel_labels(targets), self.config
        with torch.autocast(raw.logits.device.type, enabled=False):
            parts = {"main": gains.main * _loss(raw.logits, labels, size_hw)}
            if raw.auxiliary is not None:
                parts["auxiliary"] = gains.auxiliary * _loss(raw.auxiliary, labels, size_hw)
        return weighted_by_images(parts, raw.batch_size, self.reduce)


def _loss(logits: Tensor, labels: Tensor, size_hw: tuple[int, int]) -> Tensor:
    full = F.interpolate(logits.float(), size=size_hw, mode="bilinear", align_corners=False)
    return mean_cross_entropy(full, labels)
