"""A recipe for several tasks on small sets: boxes, image tags and embeddings."""

from __future__ import annotations

from dataclasses import replace

from cloverleaf.recipes.small import small
from cloverleaf.training.config import ModelConfig, TrainConfig


def multi() -> TrainConfig:
    """The recipe for small sets without mosaics, whose tags are mostly not known (docs/multi-task.md)."""
    base = small()
    return replace(
        base, recipe="multi", task="multi",
        model=ModelConfig(name="yolov7-tiny", head={"type": "multi"}),
        augment=replace(base.augment, mosaic=0.0, close_mosaic=0),
    )  # fmt: skip
