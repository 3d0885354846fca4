"""Criteria that need the head of the model under training, because it computes more from its raw output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from torch import Tensor, nn

Config = TypeVar("Config")
Head = TypeVar("Head")


class HeldHeadCriterion(nn.Module, Generic[Config, Head]):
    """What such criteria have in common.

    Args:
        config: gains and options.
        head: of the model under training, whose weights the loss uses; not a part of this module.
        reduce: sums a tensor over the processes of a distributed run; None in a single process.
    """

    def __init__(self, config: Config, *, head: Head, reduce: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.config, self.reduce = config, reduce
        self._head = (head,)  # in a tuple, so that its weights are not this module's too

    @property
    def head(self) -> Head:
        """The head."""
        return self._head[0]
