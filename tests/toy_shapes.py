"""Pictures of a few bright shapes on noise, with everything that any task wants to know about them."""

from __future__ import annotations

import torch
from torch import Tensor

from cloverleaf.structures import Targets


def toy_shapes(num_images: int, size: int, seed: int = 0) -> tuple[Tensor, Targets]:
    """Per image a reddish disc (class 0) and a bluish square (class 1) in different halves, as boxes, masks and labels.

    Returns:
        ``(B, 3, S, S)`` float32 images in [0, 1], and targets; `semantic` is 0 for the background, else label + 1.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(num_images, 3, size, size, generator=generator) * 0.3
    row, column = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    semantic = torch.zeros(num_images, size, size, dtype=torch.int64)
    boxes, masks, labels = [], [], []
    for image, classes in zip(images, semantic, strict=True):
        for label in (0, 1):
            radius = int(torch.randint(size // 9, size // 5, (), generator=generator))
            y = int(torch.randint(radius, size - radius, (), generator=generator))
            x = int(torch.randint(radius, size // 2 - radius, (), generator=generator)) + label * size // 2
            distance = (row - y, column - x)
            inside = (
                torch.hypot(*distance) < radius if label == 0 else torch.maximum(*map(torch.abs, distance)) < radius
            )
            image[:, inside] += torch.tensor([[0.6], [0.2], [0.1]] if label == 0 else [[0.1], [0.3], [0.6]])
            classes[inside] = label + 1
            boxes.append([x - radius, y - radius, x + radius, y + radius])
            masks.append(inside)
            labels.append(label)
    return images, Targets(
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(labels),
        torch.arange(num_images).repeat_interleave(2),
        num_images,
        masks=torch.stack(masks).to(torch.uint8),
        semantic=semantic,
    )
