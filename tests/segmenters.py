"""Stand-ins for trained segmentation models: they find the white rectangle in a picture exactly."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from cloverleaf.structures import Instances
from square_finder import SquareFinder


class InstanceFinder(nn.Module):
    """Classes as `SquareFinder`; its one object per image fills its box."""

    task = "instance"
    num_classes = 2
    max_stride = 32
    strides = (8, 16, 32)

    def __init__(self, names: tuple[str, ...] = ("square", "ghost"), detections: int = 100) -> None:
        super().__init__()
        self.spec = SimpleNamespace(fused=True, name="instance-finder", head=SimpleNamespace(detections=detections))
        self.metadata: Any = SimpleNamespace(class_names=names, category_ids=None, image_size=320)
        self.head = SimpleNamespace(instances=_instances)

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels


class PixelFinder(nn.Module):
    """Class 2 is white, class 0 is dark; padding looks like class 1, which is nowhere."""

    task = "semantic"
    num_classes = 3
    max_stride = 32
    strides = (8, 16, 32)

    def __init__(self, names: tuple[str, ...] = ("background", "ghost", "square")) -> None:
        super().__init__()
        self.spec = SimpleNamespace(fused=True, name="pixel-finder", head=None)
        self.metadata: Any = SimpleNamespace(class_names=names, category_ids=None, image_size=320)
        self.head = SimpleNamespace(segment=_segment)

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels


def _instances(raw: Tensor, size_hw: tuple[int, int], *, confidence: float, max_detections: int) -> list[Instances]:
    boxes, scores = SquareFinder().decode(raw, size_hw)
    found = []
    for box, score in zip(boxes, scores, strict=True):
        kept = (score.amax(1) > confidence).nonzero()[:max_detections, 0]
        kept = kept[box[kept, 0] >= 0]
        found.append(Instances(box[kept], score[kept].amax(1), score[kept].argmax(1), torch.ones(len(kept), 28, 28)))
    return found


def _segment(raw: Tensor, size_hw: tuple[int, int]) -> Tensor:
    grey = raw.mean(1)
    padding = (grey * 255 - 114).abs() < 0.5
    return torch.stack([0.6 - grey, padding * 9.0 - 1.0, grey - 0.6], 1)
