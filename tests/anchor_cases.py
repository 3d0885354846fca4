"""Random predictions and targets for tests of assigners and losses."""

import torch

from cloverleaf.structures import Targets

STRIDES = (8, 16, 32)
ANCHORS = torch.tensor(
    [
        [[10.0, 13], [16, 30], [33, 23]],
        [[30, 61], [62, 45], [59, 119]],
        [[116, 90], [156, 198], [373, 326]],
    ]
)


def random_levels(batch, size_hw, num_classes, seed=0, requires_grad=False, scale=1.0):
    """Raw outputs of three levels."""
    rng = torch.Generator().manual_seed(seed)
    height, width = size_hw
    levels = []
    for stride in STRIDES:
        level = torch.randn(batch, 3, height // stride, width // stride, 5 + num_classes, generator=rng) * scale
        levels.append(level.requires_grad_(requires_grad))
    return levels


def random_targets(counts, size_hw, num_classes, seed=0):
    """`counts[i]` objects in image i, sized between 4 px and most of the image."""
    rng = torch.Generator().manual_seed(seed + 1000)
    number = sum(counts)
    size = torch.tensor([size_hw[1], size_hw[0]], dtype=torch.float32)
    centre = torch.rand(number, 2, generator=rng) * size
    half = 2 * (size / 6) ** torch.rand(number, 2, generator=rng)
    image = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts, dtype=torch.long))
    labels = torch.randint(num_classes, (number,), generator=rng)
    return Targets(torch.cat((centre - half, centre + half), 1), labels, image, len(counts))


def rows_of(matches):
    """(level, image, anchor, row, column, target) of every match, in list order."""
    names = ("level", "image_index", "anchor", "row", "column", "target_index")
    return [tuple(row) for row in torch.stack([getattr(matches, name) for name in names], 1).tolist()]
