"""The criterion of a detector for instances or pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from torch import Tensor

from cloverleaf.errors import ConfigError
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.regions import RegionCriterion
from cloverleaf.losses.semantic import SemanticCriterion
from cloverleaf.models.detector import Detector


def segmentation_criterion(
    model: Detector, config: LossConfig, *, reduce: Callable[[Tensor], Tensor] | None = None
) -> RegionCriterion | SemanticCriterion:
    """The criterion of a Mask R-CNN or PointRend head, which it holds without owning its weights.

    Raises:
        ConfigError: an option of another kind of model is set.
    """
    if model.task == "instance":
        refuse_others(config, "regions", model.spec.name)
        return RegionCriterion(config.regions, head=model.head, reduce=reduce)
    refuse_others(config, "semantic", model.spec.name)
    return SemanticCriterion(config.semantic, head=model.head, reduce=reduce)


def refuse_others(config: LossConfig, own: str | None, model: str) -> None:
    """Raise `ConfigError` where an option is set that only other kinds of models have; ``own`` names the model's."""
    default = LossConfig()
    has = f"has only the options loss.{own}.*" if own else "has no options of its loss"
    for name in (field.name for field in fields(LossConfig) if field.name != own):
        if (value := getattr(config, name)) != getattr(default, name):
            raise ConfigError(f"loss.{name} = {value!r} has no effect", f"{model} {has}", "leave it out")
