"""Exponential moving average of a model's weights and running statistics."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn


def ema_decay(updates: int, decay: float, ramp: float) -> float:
    """decay * (1 - exp(-updates / ramp)); ``updates`` counts from 1."""
    return decay * (1 - math.exp(-updates / ramp))


class ModelEma:
    """Keeps ``model``, an averaged copy in evaluation mode; integer buffers are copied, not averaged.

    Args:
        model: the model under training; averaged from its present state.
        decay: limit of the decay, in [0, 1).
        ramp: updates after which the decay has reached 63 % of the limit.
    """

    def __init__(self, model: nn.Module, *, decay: float = 0.9999, ramp: float = 2000.0) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.ramp, self.updates = decay, ramp, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards ``model``, whose state dict must have the same names."""
        self.updates += 1
        weight = 1 - ema_decay(self.updates, self.decay, self.ramp)
        state = model.state_dict()
        averaged: list[Tensor] = []
        current: list[Tensor] = []
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                averaged.append(value)
                current.append(state[name].detach())
            else:
                value.copy_(state[name])
        torch._foreach_lerp_(averaged, current, weight)
