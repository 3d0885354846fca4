"""From the means of one process to the loss of a batch, for criteria whose means are taken per process."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from cloverleaf.losses.output import LossOutput


def weighted_by_images(
    parts: Mapping[str, Tensor], num_images: int, reduce: Callable[[Tensor], Tensor] | None
) -> LossOutput:
    """The loss of which ``parts`` are the means over this process's images.

    A distributed run learns the mean of its processes' means, weighted by their numbers of images; that is not the mean
    over the global batch where processes have unequally many samples per image.

    Args:
        parts: gain-weighted scalars by name.
        num_images: of this process.
        reduce: sums a tensor over the processes; None in a single process.

    Returns:
        The sum of the parts times the number of images, and the parts of the whole batch, detached.
    """
    values = torch.stack(list(parts.values()))
    shares = torch.cat((values.detach() * num_images, values.new_tensor([float(num_images)])))
    total = reduce(shares) if reduce is not None else shares
    items = (total[:-1] / total[-1]).unbind()
    return LossOutput(values.sum() * num_images, dict(zip(parts, items, strict=True)), total[-1])
