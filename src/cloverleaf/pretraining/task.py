"""The LightningModule of pre-training: one iteration, nothing of the mathematics."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from cloverleaf.errors import CloverleafError
from cloverleaf.losses.masked_patches import masked_patch_loss, patch_errors
from cloverleaf.pretraining.config import PretrainConfig
from cloverleaf.pretraining.data import MaskedBatch, to_input
from cloverleaf.pretraining.model import MaskedAutoencoder
from cloverleaf.pretraining.optim import build_lamb
from cloverleaf.pretraining.schedule import PretrainSchedule


class PretrainTask(pl.LightningModule):
    """Trains a masked autoencoder with LAMB by `PretrainSchedule`.

    Args:
        model: encoder and decoder.
        schedule: learning rate and weight decay of every iteration.
        config: the run.
    """

    def __init__(self, model: MaskedAutoencoder, schedule: PretrainSchedule, config: PretrainConfig) -> None:
        super().__init__()
        self.model, self.schedule, self.config = model, schedule, config

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """LAMB; its rates are set before every iteration."""
        options = self.config.optimizer
        return build_lamb(
            self.model, lr=self.schedule.lr, weight_decay=options.weight_decay, betas=(options.beta1, options.beta2),
            eps=options.eps, clip_norm=options.clip_norm,
        )  # fmt: skip

    def on_train_batch_start(self, batch: MaskedBatch, batch_index: int) -> None:
        """Set the rates of this iteration; the second group never decays."""
        iteration = self.current_epoch * self.trainer.num_training_batches + batch_index
        optimizer: Any = self.optimizers()
        for group in optimizer.param_groups:
            group["lr"] = self.schedule.lr_at(iteration)
        optimizer.param_groups[0]["weight_decay"] = self.schedule.weight_decay_at(iteration)

    def training_step(self, batch: MaskedBatch, batch_index: int) -> Tensor:
        """The loss on what is hidden; computed in float32 whatever the autocast state."""
        images = to_input(batch.images, self.config.data.normalize)
        if self.config.runtime.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        errors = patch_errors(images, self.model(images, batch.visible), self.model.patch_size)
        loss = masked_patch_loss(errors, batch.visible)
        if not torch.isfinite(loss):
            raise CloverleafError(
                f"the loss is {float(loss)} at epoch {self.current_epoch + 1}, iteration {batch_index}",
                "a weight or an activation has left the range of its numbers",
                "lower optimizer.lr, or use --precision fp32; the run can be resumed from its last checkpoint",
            )
        return loss
