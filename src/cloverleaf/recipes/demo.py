"""The recipe of `cloverleaf demo`: the small-set recipe, cut to fit ten minutes on two CPU cores."""

from __future__ import annotations

from dataclasses import replace

from cloverleaf.recipes.small import small
from cloverleaf.training.config import TrainConfig


def demo() -> TrainConfig:
    """YOLOv7-tiny on the embedded shapes, 15 epochs at 320 px.

    Sixteen classes that differ in outline only take more steps and a heavier class loss than the small-set recipe has.
    """
    base = small()
    return replace(
        base, recipe="demo", epochs=15, assigner_warmup=0.3,
        data=replace(base.data, image_size=320, batch_size=8),
        augment=replace(base.augment, mosaic=0.3),
        loss=replace(base.loss, cls=2.0),
    )  # fmt: skip
