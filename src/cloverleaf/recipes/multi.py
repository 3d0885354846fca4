"""A recipe for several tasks on small sets: boxes, image tags and embeddings."""

from __future__ import annotations

from dataclasses import replace

from cloverleaf.recipes.small import small
from cloverleaf.training.config import ModelConfig, TrainConfig


def multi() -> TrainConfig:
    """The recipe for small sets."""
    base = small()
    return replace(
        base, recipe="multi", task="multi", model=ModelConfig(name="yolov7-tiny", head={"type": "multi"})
    )  # fmt: skip
