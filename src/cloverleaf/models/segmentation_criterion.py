"""The criterion of a detector for instances or pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from cloverleaf.errors import ConfigError
from cloverleaf.losses.cascade import CascadeCriterion
from cloverleaf.losses.config import LossConfig, changed_options
from cloverleaf.losses.pixels import PixelCriterion
from cloverleaf.losses.regions import RegionCriterion
from cloverleaf.losses.segmentation_config import CascadeLossConfig, PixelLossConfig
from cloverleaf.losses.semantic import SemanticCriterion
from cloverleaf.models.detector import Detector

SegmentationCriterion = RegionCriterion | CascadeCriterion | SemanticCriterion | PixelCriterion

# By the type of the head: the name of its options in `LossConfig`, and its criterion.
_CRITERIA: Mapping[str, tuple[str, Callable[..., SegmentationCriterion]]] = {
    "mask-rcnn": ("regions", RegionCriterion),
    "cascade-mask-rcnn": ("cascade", CascadeCriterion),
    "point-rend": ("semantic", SemanticCriterion),
    "uper-net": ("pixels", PixelCriterion),
}
SEGMENTATION_OPTIONS = tuple(name for name, _ in _CRITERIA.values())


def segmentation_criterion(
    model: Detector, config: LossConfig, *, reduce: Callable[[Tensor], Tensor] | None = None
) -> SegmentationCriterion:
    """The criterion of a model for instances or pixels, which holds the model's head without owning its weights.

    Raises:
        ConfigError: an option of another kind of model is set, or one that does not fit the head.
    """
    name, criterion = _CRITERIA[model.spec.head.type]
    refuse_others(config, name, model.spec.name)
    options: Any = getattr(config, name)
    if isinstance(options, CascadeLossConfig):
        _check_stages(options, len(model.head.stages))
    if isinstance(options, PixelLossConfig) and model.head.auxiliary is None:
        _check_auxiliary(options)
    return criterion(options, head=model.head, reduce=reduce)


def _check_stages(options: CascadeLossConfig, stages: int) -> None:
    if len(options.stage_weights) != stages:
        raise ConfigError(
            f"loss.cascade.stage_weights = {options.stage_weights} for {stages} stages",
            "every stage has a weight",
            f"give {stages} weights, or another number of model.head.overlaps and model.head.deviations",
        )


def _check_auxiliary(options: PixelLossConfig) -> None:
    if options.auxiliary != PixelLossConfig().auxiliary:
        raise ConfigError(
            f"loss.pixels.auxiliary = {options.auxiliary} has no effect", "this model has no auxiliary head",
            "add one with model.head.auxiliary=true, or leave the option out",
        )  # fmt: skip


def refuse_others(config: LossConfig, own: str | None, model: str) -> None:
    """Raise `ConfigError` where an option is set that only other kinds of models have; ``own`` names the model's."""
    has = f"has only the options loss.{own}.*" if own else "has no options of its loss"
    for name, value in changed_options(config, LossConfig(), "loss"):
        if own is None or not name.startswith(f"loss.{own}."):
            raise ConfigError(f"{name} = {value!r} has no effect", f"{model} {has}", "leave it out")
