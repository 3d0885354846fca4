"""The loss of PointRend for semantic segmentation (arXiv 1912.08193): coarse logits, and points chosen by doubt."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from cloverleaf.errors import ConfigError
from cloverleaf.losses.held_head import HeldHeadCriterion
from cloverleaf.losses.output import LossOutput
from cloverleaf.losses.segmentation_config import SemanticLossConfig
from cloverleaf.losses.shares import weighted_by_images
from cloverleaf.ops.point_sample import labels_at, sample_at, uncertainty
from cloverleaf.structures import SemanticOutput, Targets

IGNORED = 255  # the label of pixels that teach nothing
_PIXELS_PER_POINT = 16 * 16  # one point for each cell that a map of stride 16 has, as in the paper


class PointHead(Protocol):
    """What the criterion needs of a head; see `cloverleaf.heads.point_rend.PointRendHead`."""

    def point_logits(self, raw: SemanticOutput, points: Tensor) -> Tensor:
        """Refined class logits ``(B, K, P)`` at ``points`` ``(B, P, 2)``."""


class SemanticCriterion(HeldHeadCriterion[SemanticLossConfig, PointHead]):
    """Mean cross-entropy of the coarse logits and of N refined points per image, pixels labelled 255 left out.

    Points are drawn from PyTorch's generator, so equal seeds give equal losses. Computed in float32 whatever the
    autocast state. The total is the sum of the items times the number of images. In a distributed run each process
    takes its own means.
    """

    def forward(self, raw: SemanticOutput, targets: Targets, size_hw: tuple[int, int]) -> LossOutput:
        """Loss of one batch.

        Args:
            raw: output of the head.
            targets: ground truth; only ``semantic`` is read.
            size_hw: network-input size.

        Raises:
            ConfigError: the targets have no label for every pixel.
        """
        labels, head, config = pixel_labels(targets), self.head, self.config
        with torch.autocast(raw.coarse.device.type, enabled=False):
            raw = SemanticOutput(raw.coarse.float(), raw.fine.float())
            count = config.points or max(size_hw[0] * size_hw[1] // _PIXELS_PER_POINT, 1)
            points = draw_points(raw.coarse, count, oversample=config.oversample, importance=config.importance)
            coarse = F.interpolate(raw.coarse, size=size_hw, mode="bilinear", align_corners=False)
            parts = {
                "coarse": config.coarse * mean_cross_entropy(coarse, labels),
                "point": config.point * mean_cross_entropy(head.point_logits(raw, points), labels_at(labels, points)),
            }
        return weighted_by_images(parts, raw.batch_size, self.reduce)


def pixel_labels(targets: Targets) -> Tensor:
    """``(B, H, W)`` int64, the class of every pixel.

    Raises:
        ConfigError: the targets have none.
    """
    if targets.semantic is None:
        raise ConfigError(
            "these targets have no label for every pixel", "this model learns the class of each pixel",
            "use a dataset with outlines (polygons or RLE), or a model for --task detect",
        )  # fmt: skip
    return targets.semantic


def mean_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Scalar mean over the labels that count; 0, with gradient, where none does.

    Args:
        logits: ``(B, K, ...)``.
        labels: ``(B, ...)`` int64, 255 for those that do not count.
    """
    count = (labels != IGNORED).sum().clamp(min=1)
    return F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum") / count


@torch.no_grad()
def draw_points(logits: Tensor, count: int, *, oversample: float, importance: float) -> Tensor:
    """Points to learn from, biased towards doubt (section 3.1 of the paper, "non-uniform sampling").

    Args:
        logits: ``(B, K, H, W)`` coarse class logits.
        count: N, points per image.
        oversample: k; k N uniform points are candidates.
        importance: beta; beta N points are the least certain candidates, and the others uniform.

    Returns:
        ``(B, N, 2)`` (x, y) in [0, 1].
    """
    batch_size, important = logits.shape[0], round(importance * count)
    candidates = torch.rand(batch_size, max(round(oversample * count), count), 2, device=logits.device)
    doubt = uncertainty(sample_at(logits, candidates))
    chosen = doubt.topk(important, dim=1).indices[..., None].expand(-1, -1, 2)
    uniform = torch.rand(batch_size, count - important, 2, device=logits.device)
    return torch.cat((candidates.gather(1, chosen), uniform), 1)
