"""Folding a constant into the layer behind it or before it; exact (arXiv 2105.04206, equations 9 and 10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from cloverleaf.layers.implicit.module import Implicit
from cloverleaf.layers.implicit.options import Operator
from cloverleaf.layers.rep import conv_like

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def fold_into_next(operator: Operator, constant: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weight and bias of one layer for an operator and the layer behind it.

    add: b' = b + W g. multiply: W' = W diag(g), gate with sigmoid(g). concatenate: W = [V, W'], b' = b + V g. inner:
    W' = W Z. Of a larger kernel W g sums over its taps: that is exact only where no tap falls into padding, so add and
    concatenate must not be folded into a padded convolution; the others can be.

    Args:
        operator: which one.
        constant: ``(C,)``, of a concatenation ``(n,)``, of an inner product ``(K, C)``.
        weight: ``(O, I)`` or ``(O, I, k, k)``, I the width of the operator's output.
        bias: ``(O,)``, or None for zero.

    Returns:
        ``(O, C)`` or ``(O, C, k, k)`` and ``(O,)``.
    """
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    taps = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
    match operator:
        case "add":
            return weight, bias + taps @ constant
        case "multiply":
            return weight * _over_inputs(constant, weight), bias
        case "gate":
            return weight * _over_inputs(constant.sigmoid(), weight), bias
        case "concatenate":
            width = len(constant)
            return weight[:, width:], bias + taps[:, :width] @ constant
        case "inner":
            return torch.einsum("ok...,kc->oc...", weight, constant), bias


def fold_into_previous(
    operator: Operator, constant: Tensor, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Weight and bias of one layer for a linear layer and the operator behind it, nothing between them.

    add: b' = b + g (equation 10). multiply: W' = diag(g) W, b' = g b, gate with sigmoid(g). inner: W' = Z W, b' = Z b.
    Exact for every kernel. The factor and the addend of a normalisation are folded in the same way.

    Args:
        operator: which one, not `concatenate`.
        constant: ``(O,)``, of an inner product ``(K, O)``.
        weight: ``(O, ...)``.
        bias: ``(O,)``, or None for zero.

    Raises:
        ValueError: a concatenation: no weights of the layer could give constant channels beside its own.
    """
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    match operator:
        case "add":
            return weight, bias + constant
        case "multiply" | "gate":
            factor = constant if operator == "multiply" else constant.sigmoid()
            return weight * factor.reshape(-1, *(1,) * (weight.dim() - 1)), bias * factor
        case "inner":
            return torch.einsum("ko,o...->k...", constant, weight), constant @ bias
        case "concatenate":
            raise ValueError("a concatenation cannot be folded into the layer before it")


@torch.no_grad()
def absorbed(layer: Layer, *, before: nn.Module | None = None, after: Sequence[nn.Module] = ()) -> Layer:
    """A new layer that equals ``layer`` with implicit knowledge around it; the width of its input may differ.

    Args:
        layer: a linear layer, or a convolution without groups.
        before: an `Implicit` whose output it reads; anything else does nothing.
        after: `Implicit` modules behind it, in their order; anything else does nothing.

    Raises:
        ValueError: it cannot be folded: groups, or padding behind an addition or concatenation.
    """
    weight: Tensor = layer.weight
    bias: Tensor | None = layer.bias
    around = [module for module in (before, *after) if isinstance(module, Implicit)]
    if isinstance(layer, nn.Conv2d) and layer.groups > 1 and around:
        raise ValueError("implicit knowledge is not folded into convolutions with groups")
    if isinstance(before, Implicit):
        padded = isinstance(layer, nn.Conv2d) and layer.padding not in ((0, 0), "valid")
        if padded and before.operator in ("add", "concatenate"):
            raise ValueError(f"operator {before.operator!r} before a padded convolution: padding holds no constant")
        weight, bias = fold_into_next(before.operator, before.constant(), weight, bias)
    for module in after:
        if isinstance(module, Implicit):
            weight, bias = fold_into_previous(module.operator, module.constant(), weight, bias)
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    if isinstance(layer, nn.Conv2d):
        return conv_like(layer, weight, bias)
    new = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    new.weight, new.bias = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
    return new


def _over_inputs(factor: Tensor, weight: Tensor) -> Tensor:
    return factor.reshape(1, -1, *(1,) * (weight.dim() - 2))
