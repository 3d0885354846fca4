"""The criterion of a model for several tasks, around that of its head for boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from cloverleaf.errors import ConfigError
from cloverleaf.heads.multi import MultiHeadSpec
from cloverleaf.losses.multi import MultiCriterion
from cloverleaf.losses.multi_config import USUAL_GAINS, MultiLossConfig
from cloverleaf.models.detector import Detector

TASKS = ("boxes", "tags", "embeddings")


def multi_criterion(
    model: Detector, config: MultiLossConfig, boxes: Any, *, reduce: Callable[[Tensor], Tensor] | None = None
) -> MultiCriterion:
    """The criterion of a model with the head `multi`, which holds the head without owning its weights.

    Args:
        model: the model.
        config: rule and gains.
        boxes: criterion of its head for boxes.
        reduce: sums a tensor over the processes of a distributed run; None in a single process.

    Raises:
        ConfigError: an option that has no effect on this model, or nothing to learn.
    """
    spec = model.spec.head
    assert isinstance(spec, MultiHeadSpec)
    _check_gains(spec, config)
    _check_balance(spec, config)
    if "embeddings" in learned_tasks(spec, config) and not spec.num_identities:
        raise ConfigError(
            "model.head.num_identities = 0: embeddings cannot be learned", "no individuals are told apart",
            "say how many there are, or set loss.multi.embeddings=0",
        )  # fmt: skip
    usual = USUAL_GAINS[spec.boxes.type]
    gains: dict[str, Any] = {task: usual[task] if (given := getattr(config, task)) is None else given for task in TASKS}
    return MultiCriterion(replace(config, **gains), boxes=boxes, head=model.head, reduce=reduce)


def learned_tasks(spec: MultiHeadSpec, config: MultiLossConfig) -> tuple[str, ...]:
    """The tasks of the head that are not switched off."""
    return tuple(task for task in spec.tasks if getattr(config, task) != 0)


def _check_gains(spec: MultiHeadSpec, config: MultiLossConfig) -> None:
    for task in TASKS:
        gain = getattr(config, task)
        changed = gain is not None
        if changed and task not in spec.tasks:
            raise ConfigError(
                f"loss.multi.{task} = {gain} has no effect", f"the head has no {task}",
                f"set model.head.{task}=true, or leave the gain out",
            )  # fmt: skip
        if changed and gain and config.balance == "uncertainty":
            raise ConfigError(
                f"loss.multi.{task} = {gain} has no effect", "loss.multi.balance=uncertainty learns the weights",
                "leave the gain out, or 0 to switch the task off, or set loss.multi.balance=fixed",
            )  # fmt: skip
    if not learned_tasks(spec, config):
        raise ConfigError(
            "nothing is learned", f"loss.multi has gain 0 for {', '.join(spec.tasks)}", "leave one of them on"
        )


def _check_balance(spec: MultiHeadSpec, config: MultiLossConfig) -> None:
    if spec.log_variances == (config.balance == "uncertainty"):
        return
    if spec.log_variances:
        raise ConfigError(
            "model.head.log_variances = True has no effect", "loss.multi.balance=fixed does not use them",
            "leave it out, or set loss.multi.balance=uncertainty",
        )  # fmt: skip
    raise ConfigError(
        "loss.multi.balance=uncertainty does not fit this model", "its head learns no log-variances",
        "create it with head.log_variances=true",
    )  # fmt: skip
