"""Learning rate, momentum and accumulation at every iteration: a pure function of the iteration number."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from cloverleaf.structures import ByEpoch
from cloverleaf.training.config import OptimizerConfig, ScheduleConfig, SwaConfig


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one iteration does.

    Attributes:
        lr: learning rate of (norm and implicit, weights, biases).
        momentum: SGD momentum or first beta.
        accumulate: iterations per optimiser step.
        step: whether the optimiser steps after this iteration's backward pass.
    """

    lr: tuple[float, float, float]
    momentum: float
    accumulate: int
    step: bool


@dataclass(frozen=True, slots=True)
class Schedule:
    """The published schedule of YOLOv7 and Gold-YOLO (released training scripts), with departures as options.

    Cosine or linear decay; during the warm-up of max(epochs * batches, minimum) iterations the weights' rate rises
    from 0, the biases' falls from `warmup_bias_lr`, momentum rises and accumulation grows to the nominal batch.
    `update="iteration"` decays with every iteration, "epoch-exact" without YOLOv7's lag; `nominal_batch=0` steps at
    every iteration. While weights are averaged with a learning rate of their own (`swa.lr_factor`), that one holds
    instead of the decay. `decay_after_warmup`, `warmup_factor` and `lr_images` give that of RevCol (2212.11696): rates
    rise from a share of the peak to the peak, and then decay.

    The decay is that of the phase: its kind, its last rate, and whether it is drawn out over the whole run or ends with
    the phase. With the lag, the first epoch of a phase has the rate that the phase before it would have gone on with,
    as in a published run that was resumed with other settings (YOLOR, 2105.04206). The warm-up is that of the run.

    Attributes:
        config: what holds for the run as a whole; and everywhere, where there are no phases.
        total_batch: images per iteration over all processes.
        swa: when weights are averaged, and at which rate.
        phases: what holds in which epochs; None where the run is all of a piece.
    """

    config: ScheduleConfig
    optimizer: OptimizerConfig
    epochs: int
    batches_per_epoch: int
    total_batch: int
    swa: SwaConfig = field(default_factory=SwaConfig)
    phases: ByEpoch[ScheduleConfig] | None = None

    @property
    def warmup_iterations(self) -> int:
        """Length of the warm-up in iterations."""
        return max(round(self.config.warmup_epochs * self.batches_per_epoch), self.config.warmup_min_iterations)

    @property
    def accumulate(self) -> int:
        """Iterations per optimiser step after the warm-up."""
        return max(round(self.config.nominal_batch / self.total_batch), 1)

    @property
    def weight_decay(self) -> float:
        """Weight decay scaled to the images that one step really sees (SGD); AdamW's is decoupled and left alone."""
        if self.config.nominal_batch == 0 or self.optimizer.name == "adamw":
            return self.optimizer.weight_decay
        return self.optimizer.weight_decay * self.total_batch * self.accumulate / self.config.nominal_batch

    @property
    def rate_scale(self) -> float:
        """What the configured rates are multiplied by: images of a step over those they are given for."""
        if not self.optimizer.lr_images:
            return 1.0
        return self.total_batch * self.accumulate / self.optimizer.lr_images

    def factor(self, progress: float) -> float:
        """Decay factor at ``progress`` epochs, in the phase of that moment."""
        config, epochs = self.config, float(self.epochs)
        if self.phases is not None:
            config = self.phases.at(progress)
            epochs = float(self.phases.end(progress)) if config.span == "phase" else epochs
        low = config.final_factor
        if self.config.decay_after_warmup:
            warmup = self.warmup_iterations / self.batches_per_epoch
            progress, epochs = max(progress - warmup, 0.0), max(epochs - warmup, 1e-9)
        if config.kind == "linear":
            return max(1 - progress / max(epochs - 1, 1), 0.0) * (1 - low) + low
        return (1 - math.cos(math.pi * progress / epochs)) / 2 * (low - 1) + 1

    def at(self, iteration: int) -> StepPlan:
        """The plan of ``iteration``, counted from 0 over the whole run."""
        epoch, warmup = iteration // self.batches_per_epoch, self.warmup_iterations
        warming = warmup > 0 and iteration <= warmup
        update = (self.config if self.phases is None else self.phases.at(epoch)).update
        if update == "iteration":
            progress = iteration / self.batches_per_epoch
        elif update == "epoch-exact":
            progress = epoch
        else:  # the published scheduler of YOLOv7 steps at the end of an epoch, so after the warm-up it lags by one
            warmed_here = warmup > 0 and epoch == warmup // self.batches_per_epoch
            progress = epoch if warming or warmed_here else max(epoch - 1, 0)
        factor = self.factor(progress)
        if self.swa.enabled and self.swa.lr_factor is not None and epoch >= self.swa.first_epoch(self.epochs):
            factor = self.swa.lr_factor
        decayed = self.optimizer.lr * self.rate_scale * factor
        lr, momentum, accumulate = (decayed, decayed, decayed), self.optimizer.momentum, self.accumulate
        if warming:
            done = iteration / warmup
            rising = decayed * _mix(self.config.warmup_factor, 1.0, done)
            lr = (rising, rising, _mix(self.config.warmup_bias_lr * self.rate_scale, decayed, done))
            momentum = _mix(self.config.warmup_momentum, momentum, done)
            if self.config.nominal_batch:
                accumulate = max(1, round(_mix(1.0, self.config.nominal_batch / self.total_batch, done)))
        return StepPlan(lr, momentum, accumulate, iteration % accumulate == 0)


def _mix(start: float, end: float, done: float) -> float:
    return start + (end - start) * done
