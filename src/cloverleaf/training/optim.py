"""Optimisers, their parameter groups, and the learning rate of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cloverleaf.backbones.revcol.column import Column
from cloverleaf.layers.implicit import Implicit
from cloverleaf.models.detector import Detector
from cloverleaf.training.config import OptimizerConfig
from cloverleaf.training.layer_decay import rate_scales
from cloverleaf.training.schedule import StepPlan

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d)
_WEIGHTS = 1  # place of the group that decays


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Every trainable parameter in exactly one of: norm weights, scales and implicit knowledge, weights, biases.

    The order is the published one (group 0 no decay, group 1 decay, group 2 no decay). All of implicit knowledge is in
    the first, also the matrix and bias of a network and the basis and coefficients of a factorisation.
    """
    plain: list[nn.Parameter] = []
    decay: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    seen: set[int] = set()
    scales = {id(scale) for module in model.modules() if isinstance(module, Column) for scale in module.scales}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if name == "bias" and not isinstance(module, Implicit):
                biases.append(parameter)
            elif isinstance(module, (*NORMS, Implicit)) or parameter.ndim < 2 or id(parameter) in scales:
                plain.append(parameter)
            else:
                decay.append(parameter)
    return plain, decay, biases


def build_optimizer(model: nn.Module, config: OptimizerConfig, weight_decay: float) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW over the three groups; ``weight_decay`` applies to the second.

    With `layer_decay` each of them is divided by the factor of the learning rate.
    """
    groups: list[dict[str, Any]] = []
    for kind, parameters in enumerate(parameter_groups(model)):
        decay = weight_decay if kind == _WEIGHTS else 0.0
        for scale, part in _by_scale(model, parameters, config.layer_decay):
            groups.append({"params": part, "weight_decay": decay, "kind": kind, "lr_scale": scale})
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, config.beta2), fused=True)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)


def follow(optimizer: torch.optim.Optimizer, plan: StepPlan) -> None:
    """Set the learning rates and the momentum that ``plan`` wants."""
    for place, group in enumerate(optimizer.param_groups):
        kind, scale = group.get("kind", place), group.get("lr_scale", 1.0)  # older checkpoints have three groups
        group["lr"] = plan.lr[kind] * scale
        if "betas" in group:
            group["betas"] = (plan.momentum, group["betas"][1])
        else:
            group["momentum"] = plan.momentum


def weights_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate that weights have now, before layer-wise decay."""
    rates = (
        group["lr"] / group.get("lr_scale", 1.0)
        for place, group in enumerate(optimizer.param_groups)
        if group.get("kind", place) == _WEIGHTS
    )
    return float(next(rates))


def _by_scale(
    model: nn.Module, parameters: list[nn.Parameter], layer_decay: float
) -> Iterator[tuple[float, list[nn.Parameter]]]:
    """The parameters of one factor of the learning rate each, ascending."""
    if layer_decay == 1:
        yield 1.0, parameters
        return
    scales = rate_scales(cast(Detector, model), layer_decay)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    divided: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        divided.setdefault(scales[names[id(parameter)]], []).append(parameter)
    yield from sorted(divided.items(), key=lambda item: item[0])
