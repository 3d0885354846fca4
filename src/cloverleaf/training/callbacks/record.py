"""Writes what a run leaves behind after every epoch: results.csv, weights, checkpoint, TensorBoard scalars."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from cloverleaf import atomic
from cloverleaf.predict.evaluate import EvaluationResult
from cloverleaf.structures import ByEpoch
from cloverleaf.training.callbacks.averaging import EmaCallback
from cloverleaf.training.callbacks.judge import JudgeCallback
from cloverleaf.training.checkpoint import random_state, restore_random_state, write_checkpoint
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.optim import weights_rate
from cloverleaf.training.phases import Phase
from cloverleaf.training.tasks import RUN_TASKS
from cloverleaf.weights.format import WeightsMetadata, save

Row = dict[str, float | int | None]


class RecordCallback(Checkpoint):
    """Records each epoch; being a `Checkpoint` it runs after the other callbacks.

    Args:
        run_dir: the run folder.
        metadata: of the weights files; metrics are added.
        phases: of the run; where they have names, each row says the number of its phase, from 1.

    Attributes:
        announce: called with every new row, for the progress display.
        rows: results of all epochs so far, the lines of results.csv.
    """

    def __init__(
        self,
        run_dir: Path,
        config: TrainConfig,
        ema: EmaCallback,
        judge: JudgeCallback,
        metadata: WeightsMetadata,
        phases: ByEpoch[Phase],
    ) -> None:
        self.phases = phases
        self.last_phase = phases.start(config.epochs)  # patience ends no run before what is still to come was tried
        self.announce: Callable[[Row], None] | None = None
        self.run_dir, self.config, self.ema, self.judge, self.metadata = run_dir, config, ema, judge, metadata
        self.rows: list[Row] = []
        self.best_fitness, self.best_epoch, self.seconds = -1.0, 0, 0.0
        self.stopped = False
        self._sums: dict[str, Tensor] = {}
        self._batches = self._images = 0
        self._epoch_started = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """A run that `patience` has ended stays ended when it is resumed."""
        if self.stopped:
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Begin the epoch's sums."""
        self._sums, self._batches, self._images, self._epoch_started = {}, 0, 0, time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Add up the losses without waiting for the device."""
        self._batches += 1
        self._images += len(batch) * trainer.world_size
        for name, value in outputs.items():
            if torch.is_tensor(value):
                value = value.detach()
                self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()

    @property
    def losses(self) -> dict[str, float]:
        """Mean of each loss item over the epoch so far."""
        return {name: float(total) / self._batches for name, total in self._sums.items()}

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Record the epoch, then write a checkpoint that continues after it."""
        elapsed = time.perf_counter() - self._epoch_started
        self.seconds += elapsed
        result = self.judge.result
        row = self._row(trainer, elapsed, result)
        self.rows.append(row)
        epoch = int(trainer.current_epoch) + 1
        if trainer.is_global_zero:
            self._write_results()
            self._write_weights(result, epoch)
            for name, value in row.items():
                if name != "epoch" and value is not None and trainer.logger is not None:
                    trainer.logger.log_metrics({name: float(value)}, step=epoch)
        late = bool(self.config.patience) and epoch - max(self.best_epoch, self.last_phase) >= self.config.patience
        self.stopped = trainer.strategy.broadcast(late and result is not None)  # only the first process has a result
        trainer.should_stop = trainer.should_stop or self.stopped
        write_checkpoint(trainer, self.run_dir)
        if self.announce is not None:
            self.announce(row)

    def _row(self, trainer: pl.Trainer, elapsed: float, result: EvaluationResult | None) -> Row:
        row: Row = {"epoch": int(trainer.current_epoch) + 1, "seconds": round(elapsed, 2)}
        if self.phases.at(trainer.current_epoch).name:
            row["phase"] = self.phases.place(trainer.current_epoch) + 1
        row |= {f"train/{name}": round(value, 6) for name, value in self.losses.items()}
        row["lr"] = weights_rate(trainer.optimizers[0])
        row["images_per_second"] = round(self._images / max(elapsed, 1e-9), 2)
        metrics = result.metrics.to_dict() if result is not None else {}
        for name in RUN_TASKS[self.config.task].columns:
            value = metrics.get(name)
            row[name] = None if value is None else round(float(value), 6)
        return row

    def _write_results(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[0]), lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in self.rows)
        atomic.write_text(self.run_dir / "results.csv", text.getvalue())

    def _write_weights(self, result: EvaluationResult | None, epoch: int) -> None:
        metadata = self.metadata
        if result is not None:
            numbers = {name: value for name, value in result.metrics.to_dict().items() if value is not None}
            metadata = replace(metadata, metrics={"epoch": epoch, **numbers})
        folder = self.run_dir / "weights"
        save(self.ema.model, folder / "last.safetensors", metadata=metadata)
        if result is not None and result.metrics.fitness > self.best_fitness:
            self.best_fitness, self.best_epoch = result.metrics.fitness, epoch
            save(self.ema.model, folder / "best.safetensors", metadata=metadata)
        if self.config.save_every and epoch % self.config.save_every == 0:
            save(self.ema.model, folder / f"epoch-{epoch:04d}.safetensors", metadata=metadata)

    def state_dict(self) -> dict[str, Any]:
        """Results so far and the random generators."""
        return {
            "rows": self.rows,
            "best": [self.best_fitness, self.best_epoch],
            "seconds": self.seconds,
            "stopped": self.stopped,
            "random": random_state(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.rows = state_dict["rows"]
        self.best_fitness, self.best_epoch = state_dict["best"]
        self.seconds, self.stopped = state_dict["seconds"], state_dict["stopped"]
        restore_random_state(state_dict["random"])
