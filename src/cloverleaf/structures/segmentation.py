"""Raw outputs of the segmentation heads, the same types in training and evaluation, and found instances."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class RegionOutput:
    """Raw output of a region-based head (Mask R-CNN): what its first stage says, and the maps for its second.

    Attributes:
        maps: the neck's ``(B, C, H_l, W_l)``, finest first, from which features of regions are cut.
        objectness: ``(B, A, H_i, W_i)`` logits of the region proposals, finest level first; may have one more level
            than ``maps``.
        deltas: ``(B, 4 A, H_i, W_i)`` of the same levels, from anchors to proposals: per anchor (dx, dy, dw, dh).
    """

    maps: tuple[Tensor, ...]
    objectness: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]

    @property
    def batch_size(self) -> int:
        """Number of images."""
        return int(self.maps[0].shape[0])


@dataclass(frozen=True, slots=True)
class SemanticOutput:
    """Raw output of a semantic segmentation head with point refinement (PointRend).

    Attributes:
        coarse: ``(B, K, h, w)`` class logits on a coarse grid.
        fine: ``(B, C, h, w)`` features, from which logits of single points are refined.
    """

    coarse: Tensor
    fine: Tensor

    @property
    def batch_size(self) -> int:
        """Number of images."""
        return int(self.coarse.shape[0])


@dataclass(frozen=True, slots=True)
class PixelOutput:
    """Raw output of a semantic segmentation head that gives every pixel its class at once (UPerNet).

    Attributes:
        logits: ``(B, K, h, w)`` class logits on the grid of the finest map.
        auxiliary: ``(B, K, h', w')`` of an auxiliary head, on a coarser grid; None where the model has none.
    """

    logits: Tensor
    auxiliary: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """Number of images."""
        return int(self.logits.shape[0])


@dataclass(frozen=True, slots=True)
class Instances:
    """What an instance segmentation model found in one image, sorted by descending score.

    Attributes:
        boxes_xyxy: ``(n, 4)`` float32, network-input pixels, inside the input.
        scores: ``(n,)`` float32 in [0, 1].
        labels: ``(n,)`` int64 in [0, K).
        masks: ``(n, 28, 28)`` float32 in [0, 1]: the probability of belonging to the object, on a grid over the box.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor

    def __len__(self) -> int:
        return int(self.scores.shape[0])
