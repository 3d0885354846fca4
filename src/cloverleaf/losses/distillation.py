"""What a student learns from a teacher beside the labels (self-distillation of Gold-YOLO, arXiv 2309.11331)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cloverleaf.ops.precision import at_least_float32
from cloverleaf.structures import DenseOutput

_LAST = 0.01  # weight at the end over the weight at the start


@dataclass(frozen=True, slots=True)
class Lesson:
    """What the teacher says about a batch.

    Attributes:
        raw: the teacher's output, without gradient.
        weight: of all terms, in [0, 1]; see `distillation_weight`.
        maps: the neck's maps of student and teacher, where features are compared.
    """

    raw: DenseOutput
    weight: float
    maps: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None


def distillation_weight(progress: float) -> float:
    """How much the teacher counts after the share ``progress`` of the epochs: from 1 to 0.01 on half a cosine."""
    return (1 - math.cos(math.pi * progress)) / 2 * (_LAST - 1) + 1


def class_divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Sum over images and positions of KL(teacher || student), times the squared temperature.

    As published, the softmaxes over the classes are those of the sigmoid probabilities, not of the logits, and nothing
    is normalised. With one class it is 0.

    Args:
        logits: ``(B, N, K)`` class logits of the student.
        teacher: the same of the teacher.
        temperature: divides the probabilities.
    """
    student, other = (at_least_float32(values).sigmoid() / temperature for values in (logits, teacher))
    weight, difference = other.softmax(-1), student - other
    # The logarithm of a mean of exponentials, written so that small differences keep their digits in float32.
    centred = difference - (weight * difference).sum(-1, keepdim=True)
    divergence = (weight * (torch.expm1(centred) - centred)).sum(-1).log1p()
    return divergence.sum() * temperature**2


def feature_divergence(maps: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Channel-wise KL(teacher || student) of where a channel is active (arXiv 2011.13256), summed over images.

    Args:
        maps: ``(B, C_l, H_l, W_l)`` per level, of the student.
        teacher: the same of the teacher.

    Returns:
        Sum over levels and images of the mean over channels; a scalar.
    """
    losses = []
    for own, other in zip(maps, teacher, strict=True):
        student, wanted = (at_least_float32(value).flatten(2).log_softmax(-1) for value in (own, other))
        losses.append(F.kl_div(student, wanted, reduction="sum", log_target=True) / own.shape[1])
    return torch.stack(losses).sum()
