"""Every packaged recipe by name, and the choice of one when the user names none."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cloverleaf.errors import ConfigError, suggest
from cloverleaf.models.catalog import MODELS
from cloverleaf.recipes.demo import demo
from cloverleaf.recipes.small import small
from cloverleaf.recipes.yolov7 import yolov7_custom, yolov7_p5, yolov7_p6, yolov7_tiny
from cloverleaf.training.config import TrainConfig

RECIPES: Mapping[str, Callable[[], TrainConfig]] = {
    "demo": demo,
    "small": small,
    "yolov7-custom": yolov7_custom,
    "yolov7-p5": yolov7_p5,
    "yolov7-p6": yolov7_p6,
    "yolov7-tiny": yolov7_tiny,
}

# Below so many images per epoch the published recipes take too few optimiser steps to learn anything.
SMALL_SET = 5000


def get_recipe(name: str) -> TrainConfig:
    """The recipe of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in RECIPES:
        raise ConfigError(f"no recipe {name!r}", "it is not packaged", suggest(name, RECIPES))
    return RECIPES[name]()


def choose_recipe(model: str, num_images: int) -> tuple[str, str]:
    """Name of the recipe that fits, and the reason to print."""
    if num_images < SMALL_SET:
        return "small", (
            f"{num_images} training images: the published recipe warms up for 1000 iterations and steps once per "
            "64 images, which is made for COCO's 118,000; --recipe names another"
        )
    name = published_recipe(model)
    return name, f"{num_images} training images are enough for the published recipe of such models"


def published_recipe(model: str) -> str:
    """The published recipe for a catalog name or composition: by its image size, and tiny models have their own."""
    if model in MODELS and MODELS[model].image_size > 640:
        return "yolov7-p6"
    return "yolov7-tiny" if "tiny" in model else "yolov7-p5"
