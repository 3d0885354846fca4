"""Raw outputs of the heads, the same type in training and evaluation."""

from __future__ import annotations

from dataclasses import dataclass

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
