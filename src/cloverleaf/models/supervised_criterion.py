"""The criterion of a model that is supervised beside its head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from torch import Tensor

from cloverleaf.errors import ConfigError
from cloverleaf.losses.criteria import AnchorCriterion
from cloverleaf.losses.dense import DenseCriterion
from cloverleaf.losses.supervision import SupervisedCriterion
from cloverleaf.losses.supervision_config import SupervisionLossConfig
from cloverleaf.models.detector import Supervision


def supervised_criterion(
    main: Any,
    supervision: Supervision | None,
    config: SupervisionLossConfig,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> Any:
    """``main``, or a `SupervisedCriterion` around it.

    Args:
        main: criterion of the model's head.
        supervision: of the model, if there is any.
        config: weights.
        reduce: sums a tensor over the processes of a distributed run; None in a single process.

    Raises:
        ConfigError: a weight of something that the model does not have.
    """
    _check(supervision, config)
    if supervision is None:
        return main
    return SupervisedCriterion(main, light_criterion(main), supervision.weights(config), reduce)


def light_criterion(criterion: Any) -> Any:
    """The criterion of a head of the same kind without branches of its own; it reads the state, and does not change it.

    It has the assigner, too, with the number of candidates that the model's own head has.
    """
    if isinstance(criterion, AnchorCriterion):
        return criterion.with_assigner(criterion.assigner).eval()
    if isinstance(criterion, DenseCriterion):
        return criterion.without_aid()
    return criterion


def _check(supervision: Supervision | None, config: SupervisionLossConfig) -> None:
    parts = {
        "falling": ("reconstructs nothing", "set model.supervision=columns without decoder=none"),
        "rising": ("has no heads on earlier columns", "set model.supervision=columns without heads=false"),
        "branch": ("has no auxiliary branch", "set model.supervision=reversible-branch"),
    }
    used = frozenset[str]() if supervision is None else supervision.loss_options
    default = SupervisionLossConfig()
    for name in (field.name for field in fields(SupervisionLossConfig) if field.name not in used):
        if (value := getattr(config, name)) != getattr(default, name):
            why, fix = parts[name]
            raise ConfigError(
                f"loss.supervision.{name} = {value!r} has no effect", f"this model {why}", f"{fix}, or leave it out"
            )
