"""VariFocal loss: scores that say how good a detection is, with all of the weight on the positives."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

_ALPHA = 0.75


def varifocal_loss(logits: Tensor, image: Tensor, position: Tensor, label: Tensor, score: Tensor) -> Tensor:
    """Sum of the VariFocal loss over all positions and classes (arXiv 2008.13367, equation 2, gamma 2, alpha 0.75).

    A positive learns its score by cross-entropy, weighted by that score; everything else learns 0, weighted by alpha
    times the squared predicted probability.

    Args:
        logits: ``(B, P, K)``, at least float32.
        image, position, label: ``(n,)`` int64, the positives: which score of which position is learned; no two equal.
        score: ``(n,)`` in [0, 1], what they learn.

    Returns:
        A scalar, differentiable by the logits.
    """
    background = _background(logits)
    if not len(score):
        return background.sum()
    positive = logits[image, position, label]
    learned = F.binary_cross_entropy_with_logits(positive, score, weight=score, reduction="none")
    return background.sum() + (learned - _background(positive)).sum()


def _background(logits: Tensor) -> Tensor:
    return _ALPHA * logits.sigmoid().square() * F.softplus(logits)
