"""Efficient layer aggregation (ELAN) and its extension E-ELAN (arXiv 2207.02696, section 3.1).

`Elan` is one chain of convolutions of which many outputs are kept. `ExtendedElan` expands the cardinality: several
ELANs side by side, their outputs summed. `GroupedElan` is the same function in the paper's drawing: expand, grouped
convolutions, shuffle, merge cardinality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.planned import ConvKind, conv3x3
from cloverleaf.layers.style import Style

Taken = Literal["every", "every-second"]


@dataclass(frozen=True, slots=True)
class ElanForm:
    """Which member of the ELAN family a block is.

    The outputs are numbered 0 (the shortcut 1x1), 1 (the base 1x1 that starts the chain), 2 ... depth + 1 (the 3x3
    convolutions of the chain).

    Attributes:
        depth: number of 3x3 convolutions in the chain.
        taken: outputs that are concatenated, in this order; the published order is latest first.
        conv: kind of the 3x3 convolutions.
    """

    depth: int
    taken: tuple[int, ...]
    conv: ConvKind = "conv"

    @classmethod
    def of(cls, taken: Taken, depth: int, conv: ConvKind = "conv") -> ElanForm:
        """The form whose name is ``taken``."""
        return cls.every(depth, conv) if taken == "every" else cls.every_second(depth, conv)

    @classmethod
    def every(cls, depth: int, conv: ConvKind = "conv") -> ElanForm:
        """Every output is used: YOLOv7-tiny (depth 2) and the necks ("ELAN-W")."""
        return cls(depth, tuple(range(depth + 1, -1, -1)), conv)

    @classmethod
    def every_second(cls, depth: int, conv: ConvKind = "conv") -> ElanForm:
        """Every second 3x3 output is used: the backbones of YOLOv7 (depth 4), X and E6 (6), D6 (8)."""
        return cls(depth, (*range(depth + 1, 2, -2), 1, 0), conv)

    def concat_width(self, hidden: float, chain_width: float) -> float:
        """Channels after the concatenation."""
        return sum(hidden if index < 2 else chain_width for index in self.taken)


class Elan(nn.Module):
    """Two 1x1 convolutions on the input, a chain of 3x3 from the second, a concatenation, a 1x1 transition.

    Args:
        in_channels: width of the input.
        hidden: width of the two 1x1 convolutions.
        out_channels: width after the transition.
        form: depth, concatenated outputs and kind of the chain.
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
        self.form = form
        self.shortcut = ConvNormAct(in_channels, hidden, style=style)
        self.base = ConvNormAct(in_channels, hidden, style=style)
        self.chain = nn.ModuleList(
            conv3x3(
                form.conv, widths[i + 1], chain_width, style=style,
                place="concatenation" if i + 2 in form.taken else "plain",
            )
            for i in range(form.depth)
        )  # fmt: skip
        self.transition = ConvNormAct(sum(widths[i] for i in form.taken), out_channels, style=style)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        outputs = [self.shortcut(x), self.base(x)]
        for conv in self.chain:
            outputs.append(conv(outputs[-1]))
        return self.transition(torch.cat(pick(outputs, self.form.taken), 1))


class ExtendedElan(nn.Module):
    """E-ELAN: ``groups`` ELANs on the same input, their outputs summed (the cardinality is merged).

    Args:
        groups: the cardinality, 2 in YOLOv7-E6E.
        in_channels, hidden, out_channels, form, style, chain_width: of each ELAN; see `Elan`.
    """

    def __init__(
        self,
        groups: int,
        in_channels: int,
        hidden: int,
        out_channels: int,
        *,
        form: ElanForm,
        style: Style,
        chain_width: int | None = None,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            Elan(in_channels, hidden, out_channels, form=form, style=style, chain_width=chain_width)
            for _ in range(groups)
        )

    def forward(self, x: Tensor, *, with_last: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``.

        ``with_last`` also gives the output of the last ELAN before merging, which partial auxiliary heads read (Table 8
        of the paper).
        """
        outputs = [branch(x) for branch in self.branches]
        merged = outputs[-1]
        for output in reversed(outputs[:-1]):
            merged = merged + output
        return (merged, outputs[-1]) if with_last else merged


class GroupedElan(nn.Module):
    """`ExtendedElan` as the paper draws it: expand, grouped convolutions, shuffle, merge cardinality.

    One grouped convolution instead of several small ones; equal outputs up to rounding. Plain chains only.
    """

    def __init__(self, extended: ExtendedElan) -> None:
        super().__init__()
        branches = [branch for branch in extended.branches if isinstance(branch, Elan)]
        if any(not isinstance(conv, ConvNormAct) for branch in branches for conv in branch.chain):
            raise ValueError("only chains of plain convolutions can be grouped")
        self.groups, self.form = len(branches), branches[0].form
        self.shortcut = _stacked([branch.shortcut for branch in branches], groups=1)  # expand: all read the one input
        self.base = _stacked([branch.base for branch in branches], groups=1)
        chains = [[conv for conv in branch.chain if isinstance(conv, ConvNormAct)] for branch in branches]
        self.chain = nn.ModuleList(_stacked(list(convs), self.groups) for convs in zip(*chains, strict=True))
        self.transition = _stacked([branch.transition for branch in branches], self.groups)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W)`` -> ``(B, C_out, H, W)``."""
        outputs = [self.shortcut(x), self.base(x)]
        for conv in self.chain:
            outputs.append(conv(outputs[-1]))
        taken = [output.chunk(self.groups, 1) for output in pick(outputs, self.form.taken)]
        shuffled = torch.cat([part[group] for group in range(self.groups) for part in taken], 1)
        return torch.stack(self.transition(shuffled).chunk(self.groups, 1)).sum(0)


def build_elan(
    groups: int,
    in_channels: int,
    hidden: int,
    out_channels: int,
    *,
    form: ElanForm,
    style: Style,
    chain_width: int | None = None,
) -> Elan | ExtendedElan:
    """An ELAN, or with ``groups`` above 1 its extension."""
    if groups == 1:
        return Elan(in_channels, hidden, out_channels, form=form, style=style, chain_width=chain_width)
    return ExtendedElan(groups, in_channels, hidden, out_channels, form=form, style=style, chain_width=chain_width)


def pick(items: Sequence[Tensor], indices: Sequence[int]) -> list[Tensor]:
    """``items`` at ``indices``, in that order."""
    return [items[i] for i in indices]


@torch.no_grad()
def _stacked(convs: Sequence[ConvNormAct], groups: int) -> ConvNormAct:
    """One convolution whose output channels are those of ``convs``, one after the other."""
    first = convs[0]
    out_channels, per_group, kernel, _ = first.conv.weight.shape
    style = Style(norm_eps=first.norm.eps, norm_momentum=first.norm.momentum or 0.0)
    made = ConvNormAct(per_group * groups, out_channels * len(convs), kernel, style=style, groups=groups)
    made.act = first.act
    for key, value in made.state_dict().items():
        if value.ndim:  # the counters of BatchNorm stay
            value.copy_(torch.cat([conv.state_dict()[key] for conv in convs]))
    return made.train(first.training)
