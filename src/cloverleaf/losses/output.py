"""What every criterion takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from cloverleaf.structures import Targets


@dataclass(frozen=True, slots=True)
class LossOutput:
    """The loss of a batch.

    Attributes:
        total: scalar to minimise: the sum of the items times a factor that grows with the batch, which each criterion
            names (published: gradients add up over images). In a distributed run it is this process's share: the shares
            of all processes add up to the total.
        items: the detached, gain-weighted parts by the criterion's own names, such as "box" and "cls", without that
            factor; of the whole batch in a distributed run.
        factor: that factor, for those who add to the loss; of the whole batch in a distributed run.
    """

    total: Tensor
    items: dict[str, Tensor]
    factor: Tensor | float = 1.0


class Criterion(Protocol):
    """The loss of a kind of head."""

    def __call__(self, raw: Any, targets: Targets, size_hw: tuple[int, int]) -> LossOutput:
        """Loss of one batch.

        Args:
            raw: output of the head.
            targets: ground truth in input pixels.
            size_hw: network-input size.
        """
        ...
