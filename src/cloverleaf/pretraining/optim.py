"""LAMB (arXiv 1904.00962) for pre-training, timm's."""

from __future__ import annotations

import torch
from torch import nn


def build_lamb(
    model: nn.Module, *, lr: float, weight_decay: float, betas: tuple[float, float], eps: float, clip_norm: float
) -> torch.optim.Optimizer:
    """LAMB over two groups: tensors that decay, with trust ratios, and the others, which have neither.

    The gradient is clipped inside the step, to ``clip_norm`` over all tensors. Neither one-dimensional tensors nor
    biases nor mask tokens decay (published implementation of arXiv 2301.03580).
    """
    from timm.optim import Lamb

    decaying: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (decaying if decays(name, parameter) else plain).append(parameter)
    groups = [{"params": decaying, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return Lamb(groups, lr=lr, betas=betas, eps=eps, max_grad_norm=clip_norm or None)


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay acts on it."""
    return parameter.ndim > 1 and not name.endswith((".bias", ".token"))
