"""Whole images as a classifier sees them: random crops and colours in training, one centred crop to be judged.

The transforms are timm's and torchvision's. They work on 8-bit pixels and leave 8-bit pixels of one square size.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from cloverleaf.data.classify_config import ClassifyConfig
from cloverleaf.errors import ConfigError

Pixels = npt.NDArray[np.uint8]
LARGEST_CROPPED = 224  # pixels; larger inputs see the whole image
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, in which erased pixels are drawn


class TrainTransform:
    """timm's training transform: random resized crop, flips, RandAugment or colour jitter, random erasing.

    It draws from the global generators; see `cloverleaf.data.seeded.seeded`. Erased pixels are normal noise of
    ImageNet's mean and deviation, cut to the range of a byte (docs/fidelity.md, entry 136).

    Args:
        config: what is drawn.
        size: side of the result in pixels.

    Raises:
        ConfigError: an option that has no effect.
    """

    def __init__(self, config: ClassifyConfig, size: int) -> None:
        from timm.data import create_transform

        if config.colour_jitter and config.rand_augment:
            raise ConfigError(
                f"classify.colour_jitter = {config.colour_jitter} has no effect", "RandAugment takes its place",
                "leave it out, or --set classify.rand_augment=null",
            )  # fmt: skip
        self._transform = create_transform(
            size, is_training=True, scale=(config.least_area, 1.0), hflip=config.fliplr, vflip=config.flipud,
            color_jitter=config.colour_jitter or None, auto_augment=config.rand_augment, interpolation="bicubic",
            mean=_MEAN, std=_STD, re_prob=config.erasing, re_mode="pixel", re_count=1,
        )  # fmt: skip
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (_MEAN, _STD))

    def __call__(self, image: Pixels) -> Pixels:
        """``(H, W, 3)`` uint8 RGB of any size -> ``(size, size, 3)``."""
        normalised = self._transform(Image.fromarray(image))
        pixels = (normalised * self._std + self._mean).mul_(255).round_().clamp_(0, 255)
        return pixels.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


class EvalTransform:
    """The one way in which an image is judged, as published (arXiv 2212.11696; docs/fidelity.md, entry 135).

    Up to 224 pixels the shorter side is scaled to int(256 / 224 * size) and the centre cropped; a larger input shows
    the whole image, its sides scaled one by one. Bicubic, with antialiasing.

    Args:
        size: side of the result in pixels.
    """

    def __init__(self, size: int) -> None:
        from torchvision import transforms
        from torchvision.transforms import InterpolationMode

        bicubic = InterpolationMode.BICUBIC
        if size <= LARGEST_CROPPED:
            short = int(256 / 224 * size)
            steps = [transforms.Resize(short, bicubic), transforms.CenterCrop(size)]
        else:
            steps = [transforms.Resize((size, size), bicubic)]
        self._transform = transforms.Compose(steps)

    def __call__(self, image: Pixels) -> Pixels:
        """``(H, W, 3)`` uint8 RGB of any size -> ``(size, size, 3)``."""
        return np.asarray(self._transform(Image.fromarray(image)))
