"""Recipes for instances (Mask R-CNN) and for pixels (PointRend): for small sets, and the published 1x schedule."""

from __future__ import annotations

from dataclasses import replace

from cloverleaf.data.config import AugmentConfig, DataConfig
from cloverleaf.losses.config import LossConfig
from cloverleaf.recipes.small import small
from cloverleaf.training.config import EmaConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig


def mask_rcnn() -> TrainConfig:
    """Mask R-CNN on a few hundred images from scratch: the small-set recipe, at half its rate and with clipping.

    The heads have no normalisation, so large steps cost more there than in a detector of one stage.
    """
    base = small()
    return replace(
        base, recipe="mask-rcnn", task="instance", epochs=60, assigner_warmup=0.0, auto_anchor=False,
        model=ModelConfig(name="timm/resnet18+fpn+mask-rcnn"),
        data=replace(base.data, image_size=512, batch_size=4),
        augment=replace(base.augment, mosaic=0.3, close_mosaic=6),
        optimizer=replace(base.optimizer, lr=0.001, clip_norm=40.0),
        ema=EmaConfig(decay=0.99, ramp=100.0),
    )  # fmt: skip


def mask_rcnn_1x() -> TrainConfig:
    """The published 1x schedule for COCO: 12 epochs of SGD, rate 0.02 for means over 16 images, flips only.

    Our gradients are sums over images, hence 0.02 / 16 and a weight decay of 1e-4 x 16. The published rate falls in two
    steps after 8 and 11 epochs; ours follows a cosine. The backbone is published as pre-trained on ImageNet: give such
    weights with `--backbone-weights`.
    """
    return TrainConfig(
        recipe="mask-rcnn-1x",
        task="instance",
        epochs=12,
        auto_anchor=False,
        model=ModelConfig(name="mask-rcnn-resnet50-fpn"),
        data=DataConfig(image_size=1024, batch_size=16),
        augment=AugmentConfig(
            mosaic=0.0, mosaic9=0.0, mixup=0.0, paste_in=0.0, translate=0.0, scale=0.0, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0,
        ),
        loss=LossConfig(),
        optimizer=OptimizerConfig(name="sgd", lr=0.02 / 16, momentum=0.9, weight_decay=1e-4 * 16),
        schedule=ScheduleConfig(
            final_factor=0.01, update="iteration", warmup_epochs=0.0, warmup_min_iterations=500, warmup_momentum=0.9,
            warmup_bias_lr=0.0, nominal_batch=16,
        ),
    )  # fmt: skip


def point_rend() -> TrainConfig:
    """PointRend on a few hundred images from scratch: the small-set recipe, at half its rate and without mosaics."""
    base = mask_rcnn()
    return replace(
        base, recipe="point-rend", task="semantic",
        model=ModelConfig(name="timm/resnet18+fpn+point-rend"),
        augment=replace(base.augment, mosaic=0.0, close_mosaic=0),
    )  # fmt: skip
