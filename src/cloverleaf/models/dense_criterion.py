"""The criterion of a detector with an anchor-free head, and its assigners."""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from torch import Tensor

from cloverleaf.assigners.atss import AtssAssigner
from cloverleaf.assigners.task_aligned import TaskAlignedAssigner
from cloverleaf.errors import ConfigError
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.dense import DenseCriterion
from cloverleaf.losses.dense_config import DenseLossConfig, DistillationConfig
from cloverleaf.models.detector import Detector
from cloverleaf.models.segmentation_criterion import refuse_others
from cloverleaf.structures import PointAssigner


def dense_criterion(
    model: Detector,
    config: LossConfig,
    *,
    distillation: DistillationConfig | None = None,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> DenseCriterion:
    """The criterion of a model with a dense head.

    Raises:
        ConfigError: an option that has no effect on this model.
    """
    refuse_others(config, "dense", model.spec.name)
    options, aided = config.dense, model.box_head.anchors_px is not None
    _check(options, aided=aided, distributions=model.box_head.reg_max > 0)
    return DenseCriterion(
        options,
        strides=model.strides,
        assigner=build_point_assigner(options),
        aided_assigner=TaskAlignedAssigner(options.aided_topk, options.alpha, options.beta) if aided else None,
        distillation=distillation,
        reduce=reduce,
    )


def build_point_assigner(config: DenseLossConfig) -> PointAssigner:
    """The assigner of the anchor-free branch that `config.assigner` names."""
    match config.assigner:
        case "tal":
            return TaskAlignedAssigner(config.topk, config.alpha, config.beta)
        case "atss":
            return AtssAssigner()
        case _:
            assert_never(config.assigner)


def warmed_up(criterion: DenseCriterion) -> DenseCriterion:
    """``criterion`` with ATSS, which does not hang on predictions; an anchor branch keeps its assigner."""
    return criterion.with_assigner(AtssAssigner())


def _check(config: DenseLossConfig, *, aided: bool, distributions: bool) -> None:
    default, aligned = DenseLossConfig(), config.assigner == "tal"
    reasons = {
        "aided_topk": (aided, "this model has no anchor branch", "add one with model.head.aided=true"),
        "topk": (aligned, "it is of the task-aligned assigner", "set loss.dense.assigner=tal"),
        "alpha": (aligned or aided, "it is of the task-aligned assigner", "set loss.dense.assigner=tal"),
        "beta": (aligned or aided, "it is of the task-aligned assigner", "set loss.dense.assigner=tal"),
        "dfl": (distributions, "this head predicts no distributions", "set model.head.reg_max=16"),
    }
    for name, (used, why, fix) in reasons.items():
        if not used and (value := getattr(config, name)) != getattr(default, name):
            raise ConfigError(f"loss.dense.{name} = {value!r} has no effect", why, f"{fix}, or leave the option out")
