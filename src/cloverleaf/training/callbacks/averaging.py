"""Keeps averages of the weights up to date: the exponential moving one, and the mean of the last epochs."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from cloverleaf.models.detector import Detector
from cloverleaf.training.config import EmaConfig, SwaConfig
from cloverleaf.training.ema import ModelEma
from cloverleaf.weights.average import WeightAverage


class EmaCallback(pl.Callback):
    """Updates the average after every optimiser step, and saves and restores it with the checkpoint."""

    def __init__(self, model: Detector, config: EmaConfig) -> None:
        decay = config.decay if config.enabled else 0.0
        self.ema = ModelEma(model, decay=decay, ramp=config.ramp)

    @property
    def model(self) -> Detector:
        """The averaged model, in evaluation mode."""
        return self.ema.model  # type: ignore[return-value]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Follow the model to its device."""
        self.ema.model.to(pl_module.device)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Average when the optimiser has stepped."""
        if pl_module.stepped:
            self.ema.update(pl_module.model)

    def state_dict(self) -> dict[str, Any]:
        """The average and its update count."""
        return {"model": self.ema.model.state_dict(), "updates": self.ema.updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.ema.model.load_state_dict(state_dict["model"])
        self.ema.updates = state_dict["updates"]


class SwaCallback(pl.Callback):
    """Adds the raw weights of the epochs that count to their mean, and saves and restores it with the checkpoint.

    Every process adds up the same weights; only the first one makes a model of them (`training/swa.py`).

    Attributes:
        average: the sums, on the CPU.
        epochs: which epochs are in them, counted from 1.
    """

    def __init__(self, config: SwaConfig, total_epochs: int) -> None:
        self.config, self.total_epochs = config, total_epochs
        self.average = WeightAverage()
        self.epochs: list[int] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Add the weights of this epoch, if it counts."""
        if self.config.counts(trainer.current_epoch, self.total_epochs):
            self.average.add(pl_module.model.state_dict())
            self.epochs.append(int(trainer.current_epoch) + 1)

    def state_dict(self) -> dict[str, Any]:
        """The sums and the epochs in them."""
        return {"average": self.average.state_dict(), "epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.average.load_state_dict(state_dict["average"])
        self.epochs = list(state_dict["epochs"])
