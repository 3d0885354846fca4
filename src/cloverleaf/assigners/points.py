"""What the assigners of anchor-free heads share: the grids of positions, overlaps, and who gets a disputed position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cloverleaf.ops.points import level_sizes
from cloverleaf.structures import Targets

DEFAULT_PAIRS = 2**19  # 2 MiB of float32 a tensor: what a pass reads and writes stays in the cache
_EPS = 1e-9

Overlap = Callable[[Tensor, Tensor], Tensor]  # (target, position in the batch), which broadcast, to IoU


@dataclass(frozen=True, slots=True)
class Grids:
    """The positions of every level; each field but `anchors` is ``(L,)``."""

    stride: Tensor  # pixels per cell, of the type of the predictions
    rows: Tensor  # int64, like the following
    columns: Tensor
    start: Tensor  # first position of the level
    anchors: int  # predictions per cell

    @classmethod
    def build(cls, strides: Sequence[int], size_hw: tuple[int, int], predictions: Tensor) -> Grids:
        """The grids that ``predictions`` ``(B, P, ...)`` lie on."""
        sizes = level_sizes(strides, size_hw)
        cells = [height * width for height, width in sizes]
        anchors, rest = divmod(predictions.shape[1], sum(cells))
        if rest or not anchors:
            raise ValueError(f"{predictions.shape[1]} predictions do not fit the {sum(cells)} cells of {size_hw}")
        size = torch.tensor(sizes, device=predictions.device)
        count = size.prod(1) * anchors
        stride = torch.tensor(strides, device=predictions.device, dtype=predictions.dtype)
        return cls(stride, size[:, 0], size[:, 1], count.cumsum(0) - count, anchors)


def chunks(number: int, width: int, max_pairs: int) -> list[tuple[int, int]]:
    """``number`` rows of ``width`` in runs (first, last + 1) of at most `max_pairs` values, but at least one row."""
    rows = max(max_pairs // max(width, 1), 1)
    return [(first, min(first + rows, number)) for first in range(0, number, rows)]


def overlaps(first_xyxy: Tensor, second_xyxy: Tensor) -> Tensor:
    """IoU of boxes ``(..., 4)`` that broadcast: ``(...)`` in [0, 1); inverted boxes and those of no number give 0."""
    low = torch.maximum(first_xyxy[..., :2], second_xyxy[..., :2])
    high = torch.minimum(first_xyxy[..., 2:], second_xyxy[..., 2:])
    overlap = (high - low).clamp_(min=0).prod(-1)
    union = _area(first_xyxy) + _area(second_xyxy) - overlap
    return (overlap / (union + _EPS)).nan_to_num_(nan=0.0)


def _area(boxes_xyxy: Tensor) -> Tensor:
    return (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=0).prod(-1)


def settle(
    target: Tensor, position: Tensor, targets: Targets, num_positions: int, overlap: Overlap, max_pairs: int
) -> tuple[Tensor, Tensor]:
    """One target for every position that is wanted.

    A position that several targets want goes to the one of its image, whether it wants it or not, that overlaps most
    there, the first on ties.

    Args:
        target: ``(n,)`` who wants.
        position: ``(n,)`` what, as image * `num_positions` + position.
        targets: ground truth, sorted by image.
        num_positions: P.
        overlap: IoU of a target with what stands for a position.
        max_pairs: how many pairs are looked at together.

    Returns:
        Targets and their positions, ``(m,)`` each; positions ascend.
    """
    taker = torch.full((targets.num_images * num_positions,), -1, device=target.device)
    taker[position] = target
    disputed = (position.bincount(minlength=len(taker)) > 1).nonzero()[:, 0]
    counts = targets.image_index.bincount(minlength=targets.num_images)
    starts = counts.cumsum(0) - counts
    member = torch.arange(int(counts.max()), device=target.device)
    for first, last in chunks(len(disputed), len(member), max_pairs):
        where = disputed[first:last]
        image = where // num_positions
        absent = member >= counts[image][:, None]
        rival = (starts[image][:, None] + member).masked_fill_(absent, 0)
        iou = overlap(rival, where[:, None]).masked_fill_(absent, -1.0)
        taker[where] = starts[image] + iou.argmax(1)
    won = (taker >= 0).nonzero()[:, 0]
    return taker[won], won
