"""Draws the first training batches as the network sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from cloverleaf.reports.pictures import draw_training_batch


class BatchPicturesCallback(pl.Callback):
    """Writes `train_batch_N.png` for the first batches of the run.

    Args:
        folder: where the pictures go.
        names: class names.
        count: how many batches.
    """

    def __init__(self, folder: Path, names: tuple[str, ...], count: int = 2) -> None:
        self.folder, self.names, self.count = folder, names, count

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Draw one of the first batches."""
        if trainer.current_epoch == 0 and batch_idx < self.count and trainer.is_global_zero:
            targets = batch.targets.to("cpu").unpacked()
            draw_training_batch(
                batch.images.cpu(), targets, self.names, self.folder / f"train_batch_{batch_idx + 1}.png"
            )
