"""Who learns what: the result of a label assigner for anchor-based heads, and the protocols of such assigners."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

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
