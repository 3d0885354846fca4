"""Who learns what: the results of label assigners, for heads with and without anchors, and the assigners' protocols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cloverleaf.structures.batch import Targets
from cloverleaf.structures.outputs import AnchorOutput


@dataclass(frozen=True, slots=True)
class AnchorAssignment:
    """Positive cells of a whole batch, flat over levels and images; each field is ``(n,)`` int64.

    Entry j says: at level ``level[j]`` of image ``image_index[j]`` the cell (``row[j]``, ``column[j]``) of anchor
    ``anchor[j]`` learns target ``target_index[j]`` (an index into the flat `Targets`). Sorted by level; inside one
    level the order is the published one, which decides between duplicate cells (the last match wins;
    docs/fidelity.md, entry 13).
    """

    level: Tensor
    image_index: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor
    target_index: Tensor

    def __len__(self) -> int:
        return int(self.level.shape[0])


class AnchorAssigner(Protocol):
    """Chooses the positive cells of a batch. Never propagates gradients."""

    def __call__(
        self,
        levels: Sequence[Tensor],
        targets: Targets,
        anchors_px: Tensor,
        strides: Sequence[int],
        size_hw: tuple[int, int],
    ) -> AnchorAssignment:
        """Assign.

        Args:
            levels: raw logits ``(B, A, H_i, W_i, C)`` per level.
            targets: ground truth of the batch.
            anchors_px: ``(L, A, 2)`` anchor (width, height) in input pixels.
            strides: input pixels per cell of each level.
            size_hw: network-input size.
        """
        ...


class AuxiliaryAssigner(Protocol):
    """Chooses what the auxiliary head of a model learns (deep supervision). Never propagates gradients."""

    def __call__(
        self,
        raw: AnchorOutput,
        lead: AnchorAssignment,
        targets: Targets,
        anchors_px: Tensor,
        strides: Sequence[int],
        size_hw: tuple[int, int],
    ) -> AnchorAssignment:
        """Assign the cells of the auxiliary head.

        Args:
            raw: logits of both heads; `raw.auxiliary` is not None.
            lead: what the lead head learns.
            targets, anchors_px, strides, size_hw: see `AnchorAssigner`.
        """
        ...


@dataclass(frozen=True, slots=True)
class PointAssignment:
    """Positive positions of a whole batch of an anchor-free head, flat over images; each field is ``(n,)``.

    Entry j says: position ``position[j]`` of image ``image_index[j]`` learns target ``target_index[j]`` (an index into
    the flat `Targets`), and of that target's class the score ``score[j]`` in [0, 1]. A position appears at most once;
    entries are sorted by image, then position. All but `score` are int64.
    """

    image_index: Tensor
    position: Tensor
    target_index: Tensor
    score: Tensor

    def __len__(self) -> int:
        return int(self.position.shape[0])

    @classmethod
    def empty(cls, score: Tensor) -> PointAssignment:
        """No positives; device and type of the scores are those of ``score``."""
        none = torch.zeros(0, dtype=torch.int64, device=score.device)
        return cls(none, none, none, score.new_zeros(0))


class PointAssigner(Protocol):
    """Chooses what the positions of an anchor-free head learn. Never propagates gradients."""

    def __call__(
        self,
        logits: Tensor,
        boxes_xyxy: Tensor,
        targets: Targets,
        strides: Sequence[int],
        size_hw: tuple[int, int],
    ) -> PointAssignment:
        """Assign.

        Args:
            logits: ``(B, P, K)`` class logits. P is N, or A * N with A predictions per cell; N is the number of cells
                of all levels. Ordered by stride, then anchor, then row, then column.
            boxes_xyxy: ``(B, P, 4)`` predicted boxes in input pixels.
            targets: ground truth of the batch.
            strides: input pixels per cell of each level.
            size_hw: network-input size.
        """
        ...
