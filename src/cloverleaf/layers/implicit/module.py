"""The module: a constant that is learned, combined with whatever comes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cloverleaf.layers.implicit.operators import combine
from cloverleaf.layers.implicit.options import ImplicitOptions, Modelling, Operator


class Implicit(nn.Module, ABC):
    """A map combined with a constant g that does not depend on it; how g is made is up to the subclass.

    Args:
        options: operator and modelling.
        channels: C of what comes.
        only: the channels it acts on, of `add` and `multiply`; all of them where None.

    Attributes:
        options: see there.
        out_channels: width of what goes on.
        size: how many numbers the modelling makes.
    """

    only: Tensor | None

    def __init__(self, options: ImplicitOptions, channels: int, only: Sequence[int] | None = None) -> None:
        super().__init__()
        if only is not None and options.operator not in ("add", "multiply"):
            raise ValueError(f"operator {options.operator!r} cannot be limited to some channels")
        self.options = options
        self.in_channels = self.out_channels = channels
        self.size = channels if only is None else len(only)
        if options.operator == "concatenate":
            self.size = options.length or channels
            self.out_channels = channels + self.size
        elif options.operator == "inner":
            self.out_channels = options.rows or channels
            self.size = self.out_channels * channels
        self.register_buffer("only", None if only is None else torch.tensor(only), persistent=False)

    @property
    def operator(self) -> Operator:
        """What g does."""
        return self.options.operator

    @property
    def modelling(self) -> Modelling:
        """How g is made."""
        return self.options.modelling

    @abstractmethod
    def representation(self) -> Tensor:
        """``(size,)``: g of what is learned."""

    def constant(self) -> Tensor:
        """g as the operator takes it: ``(C,)``, ``(n,)`` of a concatenation, ``(K, C)`` of an inner product.

        Channels that it does not act on have 0 of an addition, 1 of a multiplication.
        """
        g = self.representation()
        if self.operator == "inner":
            return g.reshape(self.out_channels, self.in_channels)
        if self.only is None:
            return g
        neutral = torch.full_like(g[:1], float(self.operator == "multiply")).expand(self.in_channels)
        return neutral.index_copy(0, self.only, g)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` or ``(B, C)`` -> the same with `out_channels`."""
        return combine(self.operator, x, self.constant())

    def extra_repr(self) -> str:
        """Shown when a model is printed."""
        return f"{self.operator} of a {self.modelling}, {self.in_channels} -> {self.out_channels}"
