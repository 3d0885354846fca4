"""A recipe for small sets: a few hundred images, tens of epochs, no tuning."""

from __future__ import annotations

from cloverleaf.data.config import AugmentConfig, DataConfig
from cloverleaf.losses.config import LossConfig
from cloverleaf.training.config import EmaConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig


def small() -> TrainConfig:
    """Enough optimiser steps, short warm-up, an average that catches up, sensible augmentation.

    Why each value: docs/decisions/small-sets.md.
    """
    return TrainConfig(
        recipe="small",
        epochs=100,
        model=ModelConfig(name="yolov7-tiny"),
        data=DataConfig(image_size=640, batch_size=16, cache="ram"),
        augment=AugmentConfig(
            mosaic=0.5, mosaic9=0.0, mixup=0.0, paste_in=0.0, translate=0.1, scale=0.3, hsv_s=0.4, hsv_v=0.2,
            flipud=0.5, close_mosaic=10,
        ),
        loss=LossConfig(),
        optimizer=OptimizerConfig(name="adamw", lr=0.002, momentum=0.9, weight_decay=0.05),
        schedule=ScheduleConfig(
            final_factor=0.01, update="iteration", warmup_epochs=1.0, warmup_min_iterations=0,
            warmup_bias_lr=0.0, nominal_batch=0,
        ),
        ema=EmaConfig(decay=0.97, ramp=40.0),
        assigner_warmup=0.4,
    )  # fmt: skip
