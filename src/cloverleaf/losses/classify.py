"""Classification losses: elementwise binary cross-entropy with its weights, focal form and smoothed targets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

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
