"""Progress of pre-training for people."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from rich.console import Console

from cloverleaf.pretraining.record import PretrainRecord
from cloverleaf.training.callbacks.progress import ProgressCallback, duration
from cloverleaf.training.callbacks.record import Row


class PretrainProgress(ProgressCallback):
    """Shows the loss, images per second and the time left.

    Args:
        record: where the numbers come from.
        epochs: length of the run.
        console: where to print; a live bar only when it is a terminal.
    """

    record: PretrainRecord

    def __init__(self, record: PretrainRecord, epochs: int, console: Console) -> None:
        super().__init__(record, epochs, console)

    def _phase_name(self, epoch: int) -> str:
        """Pre-training has no phases."""
        return ""

    def _numbers(self, now: float) -> str:
        speed = self.record.images / max(now - self._epoch_started, 1e-9)
        return f"loss {self.record.loss:.4f}  {speed:.1f} img/s"

    def epoch_line(self, row: Row) -> None:
        """Print the line of a recorded epoch."""
        epoch = int(row["epoch"] or 0)
        left = (self.epochs - epoch) * self.record.seconds / max(len(self.record.rows), 1)
        self.console.print(
            f"epoch {epoch:>3}/{self.epochs}  loss {row['train/loss']:.4f}  lr {row['lr']:.2e}  "
            f"{row['images_per_second']:.1f} img/s  {row['seconds']:.1f} s  {duration(left)} left",
            highlight=False,
        )

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Remove the live bar, so that the error is readable; after Ctrl-C say how to go on."""
        self.close()
        if isinstance(exception, KeyboardInterrupt):
            text = f"stopped; go on with: cloverleaf pretrain --resume --output {self.record.run_dir}"
            self.console.print(text, highlight=False, markup=False)
