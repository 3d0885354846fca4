"""Draws the first training batches as the network sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from cloverleaf.reports.classes import draw_class_batch
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
        if trainer.current_epoch > 0 or batch_idx >= self.count or not trainer.is_global_zero:
            return
        path = self.folder / f"train_batch_{batch_idx + 1}.png"
        if pl_module.config.task == "classify":
            images, targets = pl_module.prepare(batch, batch_idx)  # mixed as they will be in this step
            draw_class_batch(images, targets.class_probs, self.names, path)
        else:
            draw_training_batch(batch.images.cpu(), batch.targets.to("cpu").unpacked(), self.names, path)
