"""Judges the averaged weights after an epoch."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl

from cloverleaf.data.index import DetectionIndex
from cloverleaf.predict.evaluate import EvaluationResult, evaluate_model
from cloverleaf.training.callbacks.averaging import EmaCallback
from cloverleaf.training.config import TrainConfig


class JudgeCallback(pl.Callback):
    """Runs the COCO evaluation every `evaluation.interval` epochs and after the last one.

    Attributes:
        result: the evaluation of the current epoch, or None in an epoch that is not judged.
    """

    def __init__(self, ema: EmaCallback, index: DetectionIndex, config: TrainConfig, workers: int) -> None:
        self.ema, self.index, self.config, self.workers = ema, index, config, workers
        self.result: EvaluationResult | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Judge on the first process; the others wait."""
        epoch = trainer.current_epoch + 1
        due = epoch % self.config.evaluation.interval == 0 or epoch == self.config.epochs
        self.result = None
        if due and trainer.is_global_zero:
            self.result = evaluate_model(
                self.ema.model,
                self.index,
                data=self.config.data,
                config=self.config.evaluation,
                device=pl_module.device,
                workers=self.workers,
            )
        trainer.strategy.barrier("judged")
