"""Structural re-parameterisation: a block that trains in one form and runs in a cheaper, equal one."""

from __future__ import annotations

import copy
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@runtime_checkable
class Reparameterizable(Protocol):
    """A module that can be replaced by a cheaper one with the same output in evaluation mode."""

    def reparameterized(self) -> nn.Module:
        """A new module; this one stays as it is. Children that are `Reparameterizable` were replaced before."""
        ...


def reparameterize(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in evaluation mode with every `Reparameterizable` descendant replaced; children first.

    Gradients are not copied; ``model`` is not changed.
    """
    model = copy.deepcopy(model).eval()
    for name, module in reversed(list(model.named_modules())):
        if name and isinstance(module, Reparameterizable):
            model.set_submodule(name, module.reparameterized().train(False))
    return model


@torch.no_grad()
def fold_norm(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Fold the running statistics of ``norm`` into the convolution before it.

    With t = gamma / sqrt(var + eps): W' = t W per output channel, b' = beta + t (b - mean).

    Args:
        weight: ``(C_out, C_in / groups, k, k)``.
        bias: ``(C_out,)`` or None for zero.
        norm: BatchNorm over C_out channels, affine, with running statistics.

    Returns:
        Weight and bias of one convolution that equals both in evaluation mode.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("only a BatchNorm with running statistics can be folded")
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    offset = -norm.running_mean if bias is None else bias - norm.running_mean
    return weight * scale[:, None, None, None], norm.bias + scale * offset


@torch.no_grad()
def conv_like(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution with the geometry of ``conv`` and the given ``weight`` and ``bias``, whose widths may be others."""
    new = nn.Conv2d(
        weight.shape[1] * conv.groups,
        weight.shape[0],
        _pair(conv.kernel_size),
        _pair(conv.stride),
        conv.padding if isinstance(conv.padding, str) else _pair(conv.padding),
        _pair(conv.dilation),
        conv.groups,
        bias=True,
        device="meta",
    )
    new.weight = nn.Parameter(weight.detach().clone())
    new.bias = nn.Parameter(bias.detach().clone())
    return new


def _pair(size: tuple[int, ...]) -> tuple[int, int]:
    return size[0], size[1]
