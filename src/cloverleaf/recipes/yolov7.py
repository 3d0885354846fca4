"""The published YOLOv7 recipes (arXiv 2207.02696 and the released hyper-parameter files).

All share 300 epochs of SGD with Nesterov momentum from scratch, gradients of 64 images a step, three epochs of warm-up
and mosaics throughout; they differ in size, augmentation, gains and the last learning rate.
"""

from __future__ import annotations

from dataclasses import replace

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


def yolov7_p5() -> TrainConfig:
    """The published `p5` recipe, for yolov7 and yolov7x at 640 px: stronger zoom, mixup and pasting than for tiny."""
    base = yolov7_tiny()
    return replace(
        base,
        recipe="yolov7-p5",
        model=ModelConfig(name="yolov7"),
        augment=AugmentConfig(translate=0.2, scale=0.9, mosaic=1.0, mixup=0.15, paste_in=0.15),
        loss=LossConfig(box=0.05, cls=0.3, obj=0.7),
        schedule=ScheduleConfig(final_factor=0.1, warmup_epochs=3.0),
    )


def yolov7_p6() -> TrainConfig:
    """The published `p6` recipe, for the models with four levels at 1280 px: `p5`, but it ends at a higher rate.

    Their auxiliary heads learn coarse labels while the lead heads learn fine ones, the default of `LossConfig`.
    """
    base = yolov7_p5()
    return replace(
        base,
        recipe="yolov7-p6",
        model=ModelConfig(name="yolov7-w6"),
        data=replace(base.data, image_size=1280, batch_size=16),
        schedule=replace(base.schedule, final_factor=0.2),
    )


def yolov7_custom() -> TrainConfig:
    """The published `custom` recipe, for fine-tuning on data of one's own: `p5` with milder zoom and no blending."""
    base = yolov7_p5()
    return replace(
        base,
        recipe="yolov7-custom",
        augment=replace(base.augment, scale=0.5, mixup=0.0, paste_in=0.0),
    )
