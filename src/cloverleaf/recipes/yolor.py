"""The published YOLOR recipes (arXiv 2105.04206 and the released hyper-parameter files).

All share SGD with Nesterov momentum, gradients of 64 images a step, three epochs of warm-up, mosaics throughout and a
last rate of a fifth of the peak. The first three are from scratch, 300 epochs. Published batches are 64 images on eight
GPUs; ours fit on one and accumulate to 64.
"""

from __future__ import annotations

from dataclasses import replace

from cloverleaf.data.config import AugmentConfig, DataConfig
from cloverleaf.losses.config import LossConfig
from cloverleaf.recipes.small import small
from cloverleaf.training.config import ModelConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from cloverleaf.training.phase_config import PhaseConfig

_LARGE = 640  # models for larger images than so many pixels have recipes of their own


def yolor_csp() -> TrainConfig:
    """The published `scratch.640`, for the models with three levels as darknet configurations."""
    return TrainConfig(
        recipe="yolor-csp",
        epochs=300,
        model=ModelConfig(name="yolor-csp"),
        data=DataConfig(image_size=640, batch_size=32),
        augment=AugmentConfig(
            translate=0.1, scale=0.9, extra_zoom=0.0, mosaic=1.0, mosaic9=0.0, mixup=0.0, paste_in=0.0
        ),
        loss=LossConfig(assigner="anchor_ratio", gains="yolor", cell_ties="lower", box=0.05, cls=0.3, obj=0.7),
        optimizer=OptimizerConfig(name="sgd", lr=0.01, momentum=0.937, weight_decay=0.0005),
        schedule=ScheduleConfig(final_factor=0.2, warmup_epochs=3.0),
    )


def yolor_small() -> TrainConfig:
    """The published `scratch.s`, for the small models with three levels in the paper's form: milder zoom."""
    base = yolor_csp()
    return replace(
        base, recipe="yolor-small", model=ModelConfig(name="yolor-ssss-s2d"),
        augment=replace(base.augment, scale=0.5),
        loss=replace(base.loss, cell_ties="both", cls=0.5, obj=1.0),
    )  # fmt: skip


def yolor_p6() -> TrainConfig:
    """The published `scratch.1280`, for the models with four levels in the paper's form: wide shifts."""
    base = yolor_small()
    return replace(
        base, recipe="yolor-p6", model=ModelConfig(name="yolor-p6"),
        data=replace(base.data, image_size=1280, batch_size=16),
        augment=replace(base.augment, translate=0.5),
    )  # fmt: skip


def yolor_p6_darknet() -> TrainConfig:
    """`scratch.1280` for the models that were published as darknet configurations, YOLOv4's too."""
    base = yolor_p6()
    return replace(
        base, recipe="yolor-p6-darknet", model=ModelConfig(name="yolor-p6-darknet"),
        loss=replace(base.loss, cell_ties="lower"),
    )  # fmt: skip


def yolor_finetune() -> TrainConfig:
    """The published `finetune.1280`: stronger zoom, and mixup. Give weights to start from with `--weights`."""
    base = yolor_p6()
    return replace(
        base, recipe="yolor-finetune", epochs=150, augment=replace(base.augment, scale=0.8, mixup=0.2)
    )  # fmt: skip


def yolor_p6_450() -> TrainConfig:
    """The paper's whole schedule of the P6 models in one run: 300 epochs from scratch, 150 of fine-tuning.

    The curve of the first phase ends with it. The others are the last third of a curve over 450 epochs, as in the
    published runs, which were resumed with that length and `finetune.1280`: 125 epochs with mosaics of nine images, 25
    with mosaics of four.
    """
    return replace(
        yolor_p6(), recipe="yolor-p6-450", epochs=450,
        phases={
            "scratch": PhaseConfig(until=300, schedule={"span": "phase"}),
            "strong": PhaseConfig(until=425, augment={"mosaic9": 1.0, "scale": 0.8, "mixup": 0.2}),
            "final": PhaseConfig(until=450, augment={"scale": 0.8, "mixup": 0.2}),
        },
    )  # fmt: skip


def small_phases() -> TrainConfig:
    """The same idea on a few hundred images: as `small` for two thirds of the epochs, then stronger augmentation.

    The last tenth is without mosaics, as in `small`, but as a phase, so that it scales with the number of epochs.
    """
    base = small()
    return replace(
        base, recipe="small-phases", augment=replace(base.augment, close_mosaic=0),
        phases={
            "calm": PhaseConfig(until=67, schedule={"span": "phase"}),
            "strong": PhaseConfig(until=90, augment={"mosaic9": 0.3, "scale": 0.5, "mixup": 0.1}),
            "final": PhaseConfig(until=100, augment={"mosaic": 0.0}),
        },
    )  # fmt: skip


def recipe_for(model: str, image_size: int) -> str | None:
    """The published recipe of a model of YOLOR or YOLOv4 by its catalog name; None for others.

    The forms published with YOLOv7 (`-v7`) learn by the recipes of YOLOv7.
    """
    if not model.startswith(("yolor-", "yolov4-")) or model.endswith("-v7"):
        return None
    darknet = model.startswith("yolov4-") or model.endswith("-darknet")
    if image_size > _LARGE:
        return "yolor-p6-darknet" if darknet else "yolor-p6"
    return "yolor-small" if model.startswith("yolor-ssss") else "yolor-csp"
