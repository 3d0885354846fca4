"""Judges the averaged weights after an epoch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch

from cloverleaf.data.index import DetectionIndex
from cloverleaf.predict.evaluate import EvaluationResult, evaluate_model
from cloverleaf.predict.judges import JUDGES, Truth
from cloverleaf.structures import Batch
from cloverleaf.training.callbacks.averaging import EmaCallback
from cloverleaf.training.config import TrainConfig
from cloverleaf.training.multi import as_learned


class JudgeCallback(pl.Callback):
    """Runs the evaluation of the model's task every `evaluation.interval` epochs and after the last one.

    Attributes:
        result: the evaluation of the current epoch, or None in an epoch that is not judged.
    """

    def __init__(self, ema: EmaCallback, index: DetectionIndex, config: TrainConfig, workers: int) -> None:
        self.ema, self.index, self.config, self.workers = ema, index, config, workers
        self.result: EvaluationResult | None = None
        self._loader: Iterable[Batch] | None = None
        self._truth: Truth | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Judge on the first process; the others wait."""
        epoch = trainer.current_epoch + 1
        due = epoch % self.config.evaluation.interval == 0 or epoch == self.config.epochs
        self.result = None
        if due and trainer.is_global_zero:
            self.result = self._judge(pl_module.device)
        trainer.strategy.barrier("judged")

    def _judge(self, device: torch.device) -> EvaluationResult:
        """Judge with a loader and a ground truth that are made once per run."""
        model, data = self.ema.model, self.config.data
        if self._loader is None or self._truth is None:
            settings = replace(data, workers=self.workers)
            judge = JUDGES[model.task]
            self._loader = judge.loader(self.index, settings, stride=model.max_stride, batch_size=data.batch_size)
            self._truth = judge.truth(self.index, data, self.config.evaluation)
        result = evaluate_model(
            model, self.index, data=data, config=self.config.evaluation, device=device,
            loader=self._loader, truth=self._truth,
        )  # fmt: skip
        return as_learned(result, model, self.config)
