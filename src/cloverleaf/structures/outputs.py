"""Raw outputs of the heads, the same type in training and evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True)
class AnchorOutput:
    """Raw output of an anchor-based head.

    Attributes:
        levels: one ``(B, A, H_i, W_i, 5 + K)`` tensor of logits per level, finest first; the last axis is
            (tx, ty, tw, th, objectness, class_0 ... class_{K-1}).
        auxiliary: the same from the auxiliary head, or None where the model has none.
    """

    levels: tuple[Tensor, ...]
    auxiliary: tuple[Tensor, ...] | None = None

    @property
    def batch_size(self) -> int:
        """Number of images."""
        return int(self.levels[0].shape[0])


@dataclass(frozen=True, slots=True)
class AidedOutput:
    """Raw output of the anchor branch that aids an anchor-free head in training (arXiv 2301.05586, section 2.2).

    Attributes:
        logits: ``(B, A * N, K)`` class logits.
        boxes_cxcywh: ``(B, A * N, 4)`` in cells of their level: the centre as an offset from the middle of the cell,
            and the size.

    Predictions are ordered by stride, then anchor, then row, then column.
    """

    logits: Tensor
    boxes_cxcywh: Tensor


@dataclass(frozen=True, slots=True)
class DenseOutput:
    """Raw output of an anchor-free head: one prediction for every cell of every level.

    Attributes:
        logits: ``(B, N, K)`` class logits.
        distances: ``(B, N, 4 * R)`` from the middle of the cell to the left, top, right and bottom side of the box, in
            cells of the level: R logits of a distribution over 0 ... R - 1 for each side, one side after the other, or
            the distances themselves where R is 1.
        direct: ``(B, N, 4)`` distances from a second branch that predicts no distribution, or None.
        aided: what the anchor branch gives, or None where there is none.

    Predictions are ordered by stride, then row, then column.
    """

    logits: Tensor
    distances: Tensor
    direct: Tensor | None = None
    aided: AidedOutput | None = None

    @property
    def batch_size(self) -> int:
        """Number of images."""
        return int(self.logits.shape[0])


@dataclass(frozen=True, slots=True)
class ClassifyOutput:
    """Raw output of a head for whole images.

    Attributes:
        logits: ``(B, K)``.
    """

    logits: Tensor


@dataclass(frozen=True, slots=True)
class AuxiliaryOutput:
    """What one source of additional supervision says in training, e.g. an earlier column.

    Attributes:
        raw: raw output of a head of the model's own task, or None where the source has none.
        image: ``(B, 3, H, W)`` logits of a reconstruction of the input, or None.
    """

    raw: Any = None
    image: Tensor | None = None


@dataclass(frozen=True, slots=True)
class SupervisedOutput:
    """Raw output of a model in training whose `supervision` adds to what its head says.

    Attributes:
        final: raw output of the model's head: all that there is in evaluation.
        auxiliary: of each further source, earliest first.
        images: ``(B, 3, H, W)`` in [0, 1], the input, which reconstructions are compared with.
    """

    final: Any
    auxiliary: tuple[AuxiliaryOutput, ...]
    images: Tensor


@dataclass(frozen=True, slots=True)
class MultiOutput:
    """Raw output of a head for several tasks on shared features (arXiv 2105.04206).

    Attributes:
        boxes: raw output of its head for boxes: an `AnchorOutput` or `DenseOutput`.
        tags: ``(B, T)`` logits of the image-level labels, or None where it has none.
        embeddings: per level ``(B, D, H_l, W_l)``, finest first, not normalised, or None; what belongs to a box is read
            by `cloverleaf.ops.embeddings.sample_embeddings`.
        log_variances: in training the learned log-variance of each task, a scalar, by the name of the task (`boxes`,
            `tags`, `embeddings`), or None where tasks have fixed weights.
    """

    boxes: Any
    tags: Tensor | None = None
    embeddings: tuple[Tensor, ...] | None = None
    log_variances: Mapping[str, Tensor] | None = None

    @property
    def batch_size(self) -> int:
        """Number of images."""
        return int(self.boxes.batch_size)
