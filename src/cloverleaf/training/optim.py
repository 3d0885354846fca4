"""Optimisers and their parameter groups."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cloverleaf.layers.implicit import ImplicitAdd, ImplicitMultiply
from cloverleaf.training.config import OptimizerConfig

NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d)
IMPLICIT = (ImplicitAdd, ImplicitMultiply)


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Every trainable parameter in exactly one of: norm weights and implicit knowledge, weights, biases.

    The order is the published one (group 0 no decay, group 1 decay, group 2 no decay).
    """
    plain: list[nn.Parameter] = []
    decay: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            if name == "bias":
                biases.append(parameter)
            elif isinstance(module, NORMS + IMPLICIT) or parameter.ndim < 2:
                plain.append(parameter)
            else:
                decay.append(parameter)
    return plain, decay, biases


def build_optimizer(model: nn.Module, config: OptimizerConfig, weight_decay: float) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or AdamW over the three groups; ``weight_decay`` applies to the second."""
    plain, decay, biases = parameter_groups(model)
    groups = [
        {"params": plain, "weight_decay": 0.0},
        {"params": decay, "weight_decay": weight_decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=(config.momentum, config.beta2), fused=True)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
