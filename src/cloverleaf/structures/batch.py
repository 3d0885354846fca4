"""One training or evaluation batch; targets are flat over the batch so that nothing loops over images."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


def _map_tensors(obj: Any, function: Any) -> Any:
    changes = {f.name: function(v) for f in fields(obj) if isinstance(v := getattr(obj, f.name), Tensor)}
    return replace(obj, **changes)


@dataclass(frozen=True, slots=True)
class Targets:
    """Ground truth of a batch, flat: object m belongs to image ``image_index[m]``; sorted by image.

    Attributes:
        boxes_xyxy: ``(M, 4)`` float32, network-input pixels.
        labels: ``(M,)`` int64 in [0, K).
        image_index: ``(M,)`` int64 in [0, num_images), ascending.
        num_images: B.
        masks: ``(M, H, W)`` uint8 instance masks in {0, 1}, of the size of the input, or None when not asked for.
        identities: ``(M,)`` int64, -1 for none, or None.
        tags: ``(B, T)`` float32 image-level labels in {0, 1}, NaN where not known, or None.
        semantic: ``(B, H, W)`` int64 class per pixel of the input, 0 for the background and label + 1 for objects, 255
            where it does not count (padding, crowd); None when not asked for.
        packed_masks: ``(M, H, W / 8)`` uint8: the masks on their way from the loader, eight pixels a byte, the leftmost
            in the highest bit; `unpacked` makes masks of them.
        class_probs: ``(B, K)`` float32, rows of sum 1: soft classes of whole images, mixed and smoothed; None where the
            labels say it all. Images with a class have one object each, which covers them.
        covered: ``(B, H, W)`` bool, pixels that are no padding but come from stored images; None when not asked for.
    """

    boxes_xyxy: Tensor
    labels: Tensor
    image_index: Tensor
    num_images: int
    masks: Tensor | None = None
    identities: Tensor | None = None
    tags: Tensor | None = None
    semantic: Tensor | None = None
    packed_masks: Tensor | None = None
    class_probs: Tensor | None = None
    covered: Tensor | None = None

    def unpacked(self) -> Targets:
        """The same with `masks` in place of `packed_masks`, on their device."""
        if self.packed_masks is None:
            return self
        shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=self.packed_masks.device)
        bits = (self.packed_masks[..., None] >> shifts) & 1
        return replace(self, masks=bits.flatten(2), packed_masks=None)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Targets:
        """Every tensor on ``device``."""
        return _map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Targets:
        """Every tensor in page-locked memory."""
        return _map_tensors(self, lambda t: t.pin_memory())

    def __len__(self) -> int:
        return int(self.labels.shape[0])


@dataclass(frozen=True, slots=True)
class Batch:
    """Images with their targets and what is needed to map predictions back to the original images.

    Attributes:
        images: ``(B, 3, H, W)`` uint8 RGB, channels_last in memory; the training task divides by 255.
        targets: the objects.
        image_ids: ``(B,)`` int64 ids of the dataset.
        original_hw: ``(B, 2)`` int64, size of the stored image (after EXIF orientation).
        letterbox: ``(B, 4)`` float32 (scale_x, scale_y, pad_left, pad_top): input = original * scale + pad.
    """

    images: Tensor
    targets: Targets
    image_ids: Tensor
    original_hw: Tensor
    letterbox: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Every tensor on ``device``."""
        moved = _map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))
        return replace(moved, targets=self.targets.to(device, non_blocking))

    def pin_memory(self) -> Batch:
        """Every tensor in page-locked memory."""
        pinned = _map_tensors(self, lambda t: t.pin_memory())
        return replace(pinned, targets=self.targets.pin_memory())

    @property
    def size_hw(self) -> tuple[int, int]:
        """Network-input size."""
        return int(self.images.shape[2]), int(self.images.shape[3])

    def __len__(self) -> int:
        return int(self.images.shape[0])
