"""Packaged recipes of pre-training, and the choice of one when the user names none."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cloverleaf.errors import ConfigError, suggest
from cloverleaf.pretraining.config import ImagesConfig, LambConfig, PretrainConfig

SMALL_SET = 20_000
"""Below so many images the published recipe takes too few steps to move the weights."""


def spark() -> PretrainConfig:
    """The published recipe (arXiv 2301.03580, appendix B, and its implementation), made for ImageNet.

    Gold-YOLO (arXiv 2309.11331) names this method with a mask ratio of 0.6 and 400 to 800 epochs.
    """
    return PretrainConfig(recipe="spark", epochs=1600, data=ImagesConfig(batch_size=1024))


def small() -> PretrainConfig:
    """Hundreds to thousands of images: small batches, a high rate and a short warm-up."""
    return PretrainConfig(
        recipe="small",
        epochs=200,
        data=ImagesConfig(batch_size=32),
        optimizer=LambConfig(lr=0.3, warmup_epochs=5.0, weight_decay_end=0.04),
    )


RECIPES: Mapping[str, Callable[[], PretrainConfig]] = {"small": small, "spark": spark}


def get_recipe(name: str) -> PretrainConfig:
    """The recipe of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in RECIPES:
        raise ConfigError(f"no recipe {name!r} of pretrain", "it is not packaged", suggest(name, RECIPES))
    return RECIPES[name]()


def choose_recipe(num_images: int) -> tuple[str, str]:
    """Name of the recipe that fits, and the reason to print."""
    if num_images < SMALL_SET:
        return "small", f"{num_images} images: the published recipe is made for a million; --recipe spark takes it"
    return "spark", f"{num_images} images are enough for the published recipe"
