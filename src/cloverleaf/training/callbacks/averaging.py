"""Keeps the exponential moving average up to date."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from cloverleaf.models.detector import Detector
from cloverleaf.training.config import EmaConfig
from cloverleaf.training.ema import ModelEma


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
