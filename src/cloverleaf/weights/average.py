"""Weighted means of state dicts: over models (`merge`) and over epochs of one model (stochastic weight averaging)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from cloverleaf.errors import CheckpointError
from cloverleaf.weights.strict import check_fit


class WeightAverage:
    """Adds up state dicts, one at a time and in float64, and gives their weighted mean in float32.

    The sums stay on the CPU, so that the mean is the same whatever device the models are on, and costs no accelerator
    memory. Integer entries (counters) are not averaged; the largest is kept.

    Attributes:
        total: sum of the weights so far.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, state: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Add ``weight`` (positive) times ``state``.

        Raises:
            CheckpointError: ``state`` has other names or shapes than the first one, or a value that is not finite.
        """
        if not weight > 0:
            raise ValueError(f"a weight must be positive, got {weight}")
        if self._sums:
            expected, found = (
                {name: tuple(value.shape) for name, value in tensors.items()} for tensors in (self._sums, state)
            )
            what = "weights of different models cannot be averaged"
            check_fit(what, expected, found, "average weights of one model")
        for name, value in state.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise CheckpointError(
                    f"{name} cannot be averaged", "it holds values that are not finite",
                    "leave these weights out: their training has diverged",
                )  # fmt: skip
        for name, value in state.items():
            value = value.detach().cpu()
            if not value.is_floating_point():
                self._sums[name] = torch.maximum(self._sums[name], value) if name in self._sums else value.clone()
            elif name in self._sums:
                self._sums[name].add_(value.double(), alpha=weight)
            else:
                self._sums[name] = value.double() * weight
        self.total += weight

    def mean(self) -> dict[str, Tensor]:
        """The mean of what was added; floating-point entries as float32.

        Raises:
            ValueError: nothing was added.
        """
        if not self.total:
            raise ValueError("a mean of nothing")
        return {
            name: (value / self.total).float() if value.is_floating_point() else value.clone()
            for name, value in self._sums.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """The sums and the total, to go on later without a rounding in between."""
        return {"total": self.total, "sums": self._sums}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.total = float(state_dict["total"])
        self._sums = {name: value.detach().cpu().clone() for name, value in state_dict["sums"].items()}
