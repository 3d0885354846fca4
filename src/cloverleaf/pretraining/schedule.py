"""Learning rate and weight decay of masked pre-training (published implementation of arXiv 2301.03580)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PretrainSchedule:
    """Linear warm-up from 0.5 % of the peak, then a cosine down to 0.1 % of it; decay on a cosine of its own.

    Attributes:
        lr: peak learning rate.
        weight_decay, weight_decay_end: at the first and last iteration.
        warmup: iterations of the warm-up.
        total: iterations of the run.
    """

    lr: float
    weight_decay: float
    weight_decay_end: float
    warmup: int
    total: int

    def lr_at(self, iteration: int) -> float:
        """Learning rate of ``iteration``, counted from 0."""
        if iteration < self.warmup:
            return self.lr * (0.005 + 0.995 * iteration / self.warmup)
        done = (iteration - self.warmup) / max(self.total - 1 - self.warmup, 1)
        return self.lr * (0.001 + 0.999 * _falling(done))

    def weight_decay_at(self, iteration: int) -> float:
        """Weight decay of ``iteration``, counted from 0."""
        change = self.weight_decay - self.weight_decay_end
        return self.weight_decay_end + change * _falling(iteration / max(self.total - 1, 1))


def _falling(done: float) -> float:
    """1 -> 0 along half a cosine."""
    return 0.5 + 0.5 * math.cos(math.pi * done)
