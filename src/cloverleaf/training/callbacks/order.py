"""Gives a resumed run the image order of its own epoch."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from cloverleaf.data.sampler import EpochSampler


class OrderCallback(pl.Callback):
    """Tells the sampler the epoch as soon as a checkpoint is read.

    Lightning does so too, but only after it has started the loader, whose workers by then have begun epoch 0.

    Args:
        sampler: of the training loader.
    """

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """The checkpoint was written at the end of its epoch; the next one follows."""
        self.sampler.set_epoch(checkpoint["epoch"] + 1)
