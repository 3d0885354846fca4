"""Classification losses: elementwise binary cross-entropy with its weights, focal form and smoothed targets; for whole
images cross-entropy with soft targets, and the criterion that takes it."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cloverleaf.losses.output import LossOutput
from cloverleaf.structures import ClassifyOutput, Targets

_FOCAL_ALPHA = 0.25


def binary_cross_entropy(
    logits: Tensor, targets: Tensor, *, positive_weight: float = 1.0, gamma: float = 0.0
) -> Tensor:
    """Elementwise binary cross-entropy with logits, not reduced.

    Args:
        logits: any shape.
        targets: the same shape, in [0, 1].
        positive_weight: factor of the positive part.
        gamma: above 0 the focal weighting (arXiv 1708.02002) with alpha 0.25 is applied, for soft targets too.

    Returns:
        The losses, of the shape of `logits`.
    """
    weight = None if positive_weight == 1 else logits.new_tensor(positive_weight)
    loss = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=weight, reduction="none")
    if gamma > 0:
        probability = logits.sigmoid()
        right = targets * probability + (1 - targets) * (1 - probability)
        alpha = targets * _FOCAL_ALPHA + (1 - targets) * (1 - _FOCAL_ALPHA)
        # the floor keeps the gradient of a power below 1 finite where the prediction is perfect
        loss = loss * alpha * (1 - right).clamp(min=1e-12) ** gamma
    return loss


def smooth_one_hot(labels: Tensor, num_classes: int, smoothing: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """``(n,)`` labels to ``(n, K)`` targets: 1 - smoothing/2 for the class, smoothing/2 for the others."""
    targets = torch.full((len(labels), num_classes), smoothing / 2, dtype=dtype, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1 - smoothing / 2)


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of each row with a distribution over the classes: ``-sum_k targets_k log softmax(logits)_k``.

    Args:
        logits: ``(B, K)``; taken in float32 at least.
        targets: ``(B, K)``, rows of sum 1.

    Returns:
        ``(B,)``, not reduced.
    """
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return -(targets.to(logits) * logits.log_softmax(1)).sum(1)


class ClassifyCriterion(nn.Module):
    """Mean soft cross-entropy over the images of the batch; the total is this mean, whatever the batch.

    Published rates of classifiers are for the mean over all images of a step, so in a distributed run each process
    gives its own sum over the number of images of all processes. Computed outside autocast, in float32 at least.

    Args:
        reduce: sums a tensor over the processes of a distributed run; None in a single process.
    """

    def __init__(self, *, reduce: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.reduce = reduce

    def forward(self, raw: ClassifyOutput, targets: Targets, size_hw: tuple[int, int]) -> LossOutput:
        """Loss of one batch.

        Args:
            raw: output of the head.
            targets: ``class_probs``, or where there are none one label per image.
            size_hw: network-input size; not used.
        """
        with torch.autocast(raw.logits.device.type, enabled=False):
            losses = soft_cross_entropy(raw.logits, class_probabilities(targets, raw.logits.shape[1]))
        shares = torch.stack((losses.detach().sum(), losses.new_tensor(float(len(losses)))))
        total, images = (self.reduce(shares) if self.reduce is not None else shares).unbind()
        return LossOutput(losses.sum() / images, {"cls": total / images})


def class_probabilities(targets: Targets, num_classes: int) -> Tensor:
    """``(B, K)`` soft targets: those given, or one-hot rows of the images' labels."""
    if targets.class_probs is not None:
        return targets.class_probs
    assert len(targets) == targets.num_images, "one label per image is needed"
    return F.one_hot(targets.labels, num_classes).float()
