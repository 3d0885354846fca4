"""The published YOLOv7 recipes (arXiv 2207.02696 and the released hyper-parameter files)."""

from __future__ import annotations

from cloverleaf.data.config import AugmentConfig, DataConfig
from cloverleaf.losses.config import LossConfig
from cloverleaf.training.config import ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig


def yolov7_tiny() -> TrainConfig:
    """The published `tiny` recipe: 300 epochs at 640 px for data of COCO's size."""
    return TrainConfig(
        recipe="yolov7-tiny",
        epochs=300,
        model=ModelConfig(name="yolov7-tiny"),
        data=DataConfig(image_size=640, batch_size=32),
        augment=AugmentConfig(translate=0.1, scale=0.5, mosaic=1.0, mixup=0.05, paste_in=0.05),
        loss=LossConfig(box=0.05, cls=0.5, obj=1.0),
        optimizer=OptimizerConfig(name="sgd", lr=0.01, momentum=0.937, weight_decay=0.0005),
        schedule=ScheduleConfig(final_factor=0.01, warmup_epochs=3.0),
    )
