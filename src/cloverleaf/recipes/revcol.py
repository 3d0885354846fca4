"""Recipes for classifiers: the published ones of RevCol on ImageNet (arXiv 2212.11696 and its released configurations),
the same for any backbone, and one for small sets."""

from __future__ import annotations

from dataclasses import replace

from cloverleaf.data.classify_config import ClassifyConfig
from cloverleaf.data.config import DataConfig
from cloverleaf.training.config import EmaConfig, ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig


def imagenet() -> TrainConfig:
    """300 epochs of AdamW on ImageNet-1K at 224 pixels, 1024 images a step, with mixup, cutmix and RandAugment.

    Rates are for 1024 images and scale with the batch. The published colour jitter of 0.4 has no effect beside
    RandAugment, and our average of the weights has a ramp (docs/fidelity.md, entries 137 and 138).
    """
    return TrainConfig(
        recipe="imagenet",
        task="classify",
        epochs=300,
        auto_anchor=False,
        model=ModelConfig(name="timm/resnet50+none+classify"),
        data=DataConfig(image_size=224, batch_size=1024),
        classify=ClassifyConfig(),
        optimizer=OptimizerConfig(name="adamw", lr=1e-3, lr_images=1024, momentum=0.9, weight_decay=0.05),
        schedule=ScheduleConfig(
            final_factor=1e-3, update="iteration", warmup_epochs=20.0, warmup_min_iterations=0, warmup_momentum=0.9,
            warmup_bias_lr=1e-5, warmup_factor=0.01, decay_after_warmup=True, nominal_batch=0,
        ),
        ema=EmaConfig(decay=0.9999),
    )  # fmt: skip


def revcol_tiny() -> TrainConfig:
    """As for any backbone, with heads and reconstructions on earlier columns; drop path 0.1 is the backbone's."""
    model = ModelConfig(name="revcol-tiny", supervision={"type": "columns"})
    return replace(imagenet(), recipe="revcol-tiny", model=model)


def revcol_small() -> TrainConfig:
    """As for tiny; drop path 0.3 is the backbone's."""
    base = revcol_tiny()
    return replace(base, recipe="revcol-small", model=replace(base.model, name="revcol-small"))


def revcol_base() -> TrainConfig:
    """As for tiny, with gradients clipped at a norm of 5 and a lower last rate; drop path 0.4 is the backbone's."""
    base = revcol_tiny()
    return replace(
        base, recipe="revcol-base", model=replace(base.model, name="revcol-base"),
        optimizer=replace(base.optimizer, clip_norm=5.0), schedule=replace(base.schedule, final_factor=1e-5),
    )  # fmt: skip


def classify() -> TrainConfig:
    """A few hundred to a few thousand images from scratch: milder crops, no mixing, an average that catches up.

    Mixing and erasing teach little where a small model sees its few images for tens of epochs.
    """
    base = imagenet()
    return replace(
        base, recipe="classify", epochs=50,
        model=ModelConfig(name="revcol-pico"),
        data=DataConfig(image_size=128, batch_size=32),
        classify=ClassifyConfig(
            least_area=0.35, rand_augment=None, colour_jitter=0.2, erasing=0.0, mixup=0.0, cutmix=0.0
        ),
        optimizer=replace(base.optimizer, lr=0.0005, lr_images=0, clip_norm=5.0),
        schedule=replace(base.schedule, warmup_epochs=2.0, warmup_bias_lr=0.0, warmup_factor=0.0, final_factor=0.01),
        ema=EmaConfig(decay=0.97, ramp=40.0),
    )  # fmt: skip
