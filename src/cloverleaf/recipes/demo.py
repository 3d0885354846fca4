"""The recipe of `cloverleaf demo`: the small-set recipe, cut to fit ten minutes on two CPU cores."""

from __future__ import annotations

from dataclasses import replace

from cloverleaf.recipes.small import small
from cloverleaf.training.config import TrainConfig


def demo() -> TrainConfig:
    """YOLOv7-tiny on the embedded shapes, 12 epochs at 320 px."""
    base = small()
    return replace(
        base, recipe="demo", epochs=12,
        data=replace(base.data, image_size=320, batch_size=16),
        augment=replace(base.augment, close_mosaic=3),
    )  # fmt: skip
