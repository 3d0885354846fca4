"""SigmoidBin: a positive number as one of several bins plus a refinement (experimental part of the published YOLOv7).

The range [0, 4], in anchors for the side of a box, is cut into equal bins. A prediction is 1 + bins logits: a
refinement that reaches one bin to either side, and one logit per bin. It is in the published implementation, not in the
paper, and no published model uses it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

RANGE = 4.0  # the largest value; the smallest is 0
_REACH = 2.0  # of the refinement, in bins, from its lowest to its highest value


def bin_centres(bins: int, *, device: torch.device | None = None) -> Tensor:
    """``(bins,)`` float32 middles of equal bins over [0, 4]."""
    return (torch.arange(bins, device=device, dtype=torch.float32) + 0.5) * (RANGE / bins)


def decode_bins(sigmoid: Tensor) -> Tensor:
    """The likeliest bin's middle plus the refinement: ``(..., 1 + bins)`` sigmoids of logits to ``(...)`` in [0, 4]."""
    step = RANGE / (sigmoid.shape[-1] - 1)
    middle = (sigmoid[..., 1:].argmax(-1) + 0.5) * step
    return (middle + _refinement(sigmoid) * step).clamp(0, RANGE)


def sigmoid_bin_loss(
    logits: Tensor,
    target: Tensor,
    *,
    smoothing: float = 0.0,
    positive_weight: float = 1.0,
    regression: bool = False,
) -> tuple[Tensor, Tensor]:
    """Loss of predictions whose bin is known, and the values that they stand for in it.

    Args:
        logits: ``(..., 1 + bins)``.
        target: ``(...)`` wanted values; outside of [0, 4] the nearest bin is meant.
        smoothing: of the bin targets: 1 - smoothing / 2 for the bin of the target, smoothing / 2 for the others.
        positive_weight: factor of the positive part of the cross-entropy.
        regression: add the squared error of the value (the published implementation has it, switched off).

    Returns:
        The loss ``(...)``, the mean binary cross-entropy over the bins, and the value ``(...)`` in [0, 4] of the
        target's bin with the predicted refinement, differentiable by it.
    """
    bins = logits.shape[-1] - 1
    centres = bin_centres(bins, device=logits.device)
    wanted = (target[..., None] - centres).abs().argmin(-1)
    one_hot = torch.full_like(logits[..., 1:], smoothing / 2).scatter_(-1, wanted[..., None], 1 - smoothing / 2)
    weight = None if positive_weight == 1 else logits.new_tensor(positive_weight)
    loss = F.binary_cross_entropy_with_logits(logits[..., 1:], one_hot, pos_weight=weight, reduction="none").mean(-1)
    value = centres[wanted] + _refinement(logits.sigmoid()) * (RANGE / bins)
    if regression:
        loss = loss + (value - target).square()
    return loss, value.clamp(0, RANGE)


def _refinement(sigmoid: Tensor) -> Tensor:
    """Bins to add to the middle, from -1 to 1."""
    return (sigmoid[..., 0] - 0.5) * _REACH
