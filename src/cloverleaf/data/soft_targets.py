"""Mixup, cutmix and label smoothing: images and labels of a batch to mixed images and soft classes."""

from __future__ import annotations

import torch
from torch import Tensor

from cloverleaf.data.classify_config import ClassifyConfig
from cloverleaf.data.seeded import seeded


def mix(
    images: Tensor, labels: Tensor, num_classes: int, config: ClassifyConfig, stream: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """Blend every image with the one at the same place from the end (mixup, arXiv 1710.09412), or paste a part of that
    one into it (cutmix, 1905.04899), with one draw for the batch; timm does it.

    In a batch of odd length one image is mixed with itself.

    Args:
        images: ``(B, 3, H, W)`` float; may be changed.
        labels: ``(B,)`` int64 in [0, K).
        num_classes: K.
        config: how often and how strongly.
        stream: of random numbers, such as (seed, iteration, purpose); equal streams give equal draws.

    Returns:
        The images, and their classes ``(B, K)`` float32 with rows of sum 1.
    """
    from timm.data.mixup import Mixup, mixup_target

    if not config.mix_probability or not (config.mixup or config.cutmix):
        return images, mixup_target(labels, num_classes, 1.0, config.label_smoothing)
    mixer = Mixup(
        mixup_alpha=config.mixup, cutmix_alpha=config.cutmix, prob=config.mix_probability,
        switch_prob=config.cutmix_share, label_smoothing=config.label_smoothing, num_classes=num_classes,
    )  # fmt: skip
    count = len(images)
    if count % 2:  # timm wants an even number: the first image appears at both ends, and goes again
        images, labels = torch.cat((images, images[:1])), torch.cat((labels, labels[:1]))
    with seeded(*stream):
        images, targets = mixer(images, labels)
    return images[:count], targets[:count]
