"""Writes what a pre-training run leaves behind after every epoch: results.csv, weights, checkpoint, pictures."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from cloverleaf import atomic
from cloverleaf.errors import CheckpointError
from cloverleaf.pretraining.pictures import Reconstructions
from cloverleaf.training.checkpoint import random_state, restore_random_state, write_checkpoint
from cloverleaf.training.distributed import sum_over_processes
from cloverleaf.weights.backbone import BackboneMetadata, save_backbone

Row = dict[str, float | int | None]
WEIGHTS = Path("weights") / "backbone.safetensors"


class PretrainRecord(Checkpoint):
    """Records each epoch; being a `Checkpoint` it runs after the other callbacks.

    Args:
        run_dir: the run folder.
        metadata: of the backbone's file; epochs and loss are added.
        fingerprint: of the images, which a resumed run must find again.
        reconstructions: drawn at epochs 1, 2, 4, 8, ... and at the end.
        epochs: length of the run.

    Attributes:
        announce: called with every new row, for the progress display.
        rows: results of all epochs so far, the lines of results.csv.
    """

    def __init__(
        self, run_dir: Path, metadata: BackboneMetadata, fingerprint: str, reconstructions: Reconstructions, epochs: int
    ) -> None:
        self.announce: Callable[[Row], None] | None = None
        self.run_dir, self.metadata, self.fingerprint = run_dir, metadata, fingerprint
        self.reconstructions, self.epochs = reconstructions, epochs
        self.rows: list[Row] = []
        self.seconds = 0.0
        self.batches = self.images = 0
        self._sum: Tensor | None = None
        self._epoch_started = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Begin the epoch's sums."""
        self._sum, self.batches, self.images, self._epoch_started = None, 0, 0, time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add up the loss without waiting for the device."""
        self.batches += 1
        self.images += len(batch) * trainer.world_size
        loss = outputs["loss"].detach()
        self._sum = loss.clone() if self._sum is None else self._sum + loss

    @property
    def loss(self) -> float:
        """Mean loss over the epoch so far."""
        return float("nan") if self._sum is None else float(self._sum) / self.batches

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Record the epoch, then write a checkpoint that continues after it."""
        elapsed = time.perf_counter() - self._epoch_started
        self.seconds += elapsed
        if self._sum is not None:  # each process has seen its part of every batch
            self._sum = sum_over_processes(self._sum) / trainer.world_size
        epoch = int(trainer.current_epoch) + 1
        group = trainer.optimizers[0].param_groups[0]
        row: Row = {
            "epoch": epoch, "seconds": round(elapsed, 2), "train/loss": round(self.loss, 6), "lr": group["lr"],
            "weight_decay": group["weight_decay"], "images_per_second": round(self.images / max(elapsed, 1e-9), 2),
        }  # fmt: skip
        self.rows.append(row)
        if trainer.is_global_zero:
            self._write_results()
            facts = replace(
                self.metadata, epochs=epoch, pretraining={**self.metadata.pretraining, "loss": round(self.loss, 6)}
            )
            save_backbone(self.run_dir / WEIGHTS, pl_module.model.encoder.backbone, facts)
            if epoch & (epoch - 1) == 0 or epoch == self.epochs:
                self.reconstructions.draw(pl_module.model, epoch)
        write_checkpoint(trainer, self.run_dir)
        if self.announce is not None:
            self.announce(row)

    def _write_results(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        atomic.write_text(self.run_dir / "results.csv", text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        """Results so far, the images they come from, and the random generators."""
        return {
            "rows": self.rows, "seconds": self.seconds, "fingerprint": self.fingerprint, "random": random_state(),
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            CheckpointError: the images are not those of the run.
        """
        if state_dict["fingerprint"] != self.fingerprint:
            raise CheckpointError(
                f"{self.run_dir} cannot be resumed", "the images are not those that it began with",
                "put them back, or start a new run from its weights",
            )  # fmt: skip
        self.rows, self.seconds = state_dict["rows"], state_dict["seconds"]
        restore_random_state(state_dict["random"])
