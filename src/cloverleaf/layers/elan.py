"""Efficient layer aggregation (ELAN; arXiv 2207.02696, section 3.1): one chain, many of its outputs kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.style import Style


@dataclass(frozen=True, slots=True)
class ElanForm:
    """Which member of the ELAN family a block is.

    The outputs are numbered 0 (the shortcut 1x1), 1 (the base 1x1 that starts the chain), 2 ... depth + 1 (the 3x3
    convolutions of the chain).

    Attributes:
        depth: number of 3x3 convolutions in the chain.
        taken: outputs that are concatenated, in this order; the published order is latest first.
    """

    depth: int
    taken: tuple[int, ...]

    @classmethod
    def every(cls, depth: int) -> ElanForm:
        """Every output is used: YOLOv7-tiny (depth 2) and the necks ("ELAN-W")."""
        return cls(depth, tuple(range(depth + 1, -1, -1)))

    @classmethod
    def every_second(cls, depth: int) -> ElanForm:
        """Every second 3x3 output is used: the backbones of YOLOv7 (depth 4), X and E6 (6), D6 (8)."""
        return cls(depth, (*range(depth + 1, 2, -2), 1, 0))


class Elan(nn.Module):
    """Two 1x1 convolutions on the input, a chain of 3x3 from the second, a concatenation, a 1x1 transition.

    Args:
        in_channels: width of the input.
        hidden: width of the two 1x1 convolutions.
        out_channels: width after the transition.
        form: depth and concatenated outputs.
        chain_width: width of the 3x3 convolutions; ``hidden`` where None.
        style: normalisation constants and activation.
    """

    def __init__(
        self,
        in_channels: int,
        hidden: int,
        out_channels: int,
        *,
        form: ElanForm,
        style: Style,
        chain_width: int | None = None,
    ) -> None:
        super().__init__()
        chain_width = chain_width or hidden
        widths = [hidden, hidden] + [chain_width] * form.depth
        self.taken = form.taken
        self.shortcut = ConvNormAct(in_channels, hidden, style=style)
        self.base = ConvNormAct(in_channels, hidden, style=style)
        self.chain = nn.ModuleList(ConvNormAct(widths[i + 1], chain_width, 3, style=style) for i in range(form.depth))
        self.transition = ConvNormAct(sum(widths[i] for i in form.taken), out_channels, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        outputs = [self.shortcut(x), self.base(x)]
        for conv in self.chain:
            outputs.append(conv(outputs[-1]))
        return self.transition(torch.cat(pick(outputs, self.taken), 1))


def pick(items: Sequence[Tensor], indices: Sequence[int]) -> list[Tensor]:
    """``items`` at ``indices``, in that order."""
    return [items[i] for i in indices]
