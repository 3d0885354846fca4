"""Distribution focal loss: a distance is learned as a distribution over whole numbers of cells."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_MARGIN = 0.01  # below the largest bin, so that every distance lies between two bins


def distribution_focal_loss(distances: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy with the two bins around each wanted distance (arXiv 2006.04388, equation 6).

    Args:
        distances: ``(n, 4 * R)`` logits over the bins 0 ... R - 1 of every side, one side after the other; R >= 2.
        target: ``(n, 4)`` wanted distances in cells; those outside of the bins are brought to the border.

    Returns:
        ``(n,)``, the mean over the sides.
    """
    log_probability = distances.unflatten(-1, (4, -1)).log_softmax(-1)
    wanted = target.clamp(0, log_probability.shape[-1] - 1 - _MARGIN)
    below = wanted.long()
    share = wanted - below
    picked = log_probability.gather(-1, torch.stack((below, below + 1), -1))
    return -(picked * torch.stack((1 - share, share), -1)).sum(-1).mean(-1)


def distribution_divergence(distances: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Sum over rows and sides of KL(teacher || student) of the distributions, times the squared temperature.

    Args:
        distances: ``(n, 4 * R)`` logits as in `distribution_focal_loss`.
        teacher: the same of the teacher.
        temperature: divides both.

    Returns:
        A scalar; divide by 4 n for the mean.
    """
    student, other = (logits.unflatten(-1, (4, -1)) / temperature for logits in (distances, teacher))
    divergence = F.kl_div(student.log_softmax(-1), other.log_softmax(-1), reduction="sum", log_target=True)
    return divergence * temperature**2
