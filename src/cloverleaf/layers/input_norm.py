"""Backbones whose weights were learned from images less ImageNet's mean, over its deviation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class NormalizingBackbone(nn.Module):
    """Base of backbones that can normalise their input.

    Attributes:
        normalize: whether they do.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, normalize: bool) -> None:
        super().__init__()
        self.normalize = normalize
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def prepared(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` RGB in [0, 1] -> what the first layer reads."""
        return self.normalised(images) if self.normalize else images

    def normalised(self, images: Tensor) -> Tensor:
        """RGB in [0, 1] less ImageNet's mean, over its deviation."""
        result: Tensor = (images - self.mean) / self.std
        return result
