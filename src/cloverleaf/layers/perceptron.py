"""The perceptron of a ConvNeXt block with less to remember than autograd would keep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_CHUNK_BYTES = {"cpu": 2**17}  # hidden values at once: they should stay in a core's cache
_CHUNK_BYTES_ELSEWHERE = 2**27


def scaled_perceptron(
    x: Tensor, expand: tuple[Tensor, Tensor], project: tuple[Tensor, Tensor], scale: Tensor
) -> Tensor:
    """scale * (W2 gelu(W1 x + b1) + b2) at every position, under autocast in its type.

    What the backward pass keeps are ``x`` and the hidden values before the activation, which is computed again there;
    the gradient of ``scale`` follows from that of W2. A fifth of what autograd would keep is not kept, and the largest
    buffers of the backward pass are small. There are no gradients of gradients (PyTorch says so).

    Args:
        x: ``(..., C)``.
        expand: W1 ``(D, C)`` and b1 ``(D,)``.
        project: W2 ``(C', D)`` and b2 ``(C',)``.
        scale: ``(C',)``.

    Returns:
        ``(..., C')``, of the type that autocast's and that of ``scale`` give together.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    rows: Tensor = _ScaledPerceptron.apply(x.reshape(-1, x.shape[-1]), *expand, *project, scale, dtype)
    return rows.reshape(*x.shape[:-1], -1)


class _ScaledPerceptron(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, scale: Tensor, dtype: torch.dtype
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            given = x.to(dtype)
            first, second = (w1.to(dtype), b1.to(dtype)), (w2.to(dtype), b2.to(dtype))
            hidden = given.new_empty(given.shape[0], w1.shape[0])
            result = x.new_empty(given.shape[0], w2.shape[0], dtype=torch.promote_types(dtype, scale.dtype))
            for part in _chunks(hidden):
                torch.addmm(first[1], given[part], first[0].T, out=hidden[part])
                torch.mul(F.linear(F.gelu(hidden[part]), *second), scale, out=result[part])
        ctx.save_for_backward(given, hidden, w1, w2, b2, scale)
        ctx.given_dtype, ctx.b1_dtype = x.dtype, b1.dtype
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        given, hidden, w1, w2, b2, scale = ctx.saved_tensors
        dtype, wide = hidden.dtype, torch.promote_types(hidden.dtype, torch.float32)
        with torch.autocast(given.device.type, enabled=False):
            first, second = w1.to(dtype), w2.to(dtype)
            of_x = torch.empty_like(given)
            of_w1, of_w2 = w1.new_zeros(w1.shape, dtype=wide), w2.new_zeros(w2.shape, dtype=wide)
            of_b1 = w1.new_zeros(w1.shape[0], dtype=wide)
            for part in _chunks(hidden):
                upper = gradient[part]
                _add_product(of_w2, upper.to(dtype), F.gelu(hidden[part]))
                inner = torch.ops.aten.gelu_backward((upper * scale).to(dtype) @ second, hidden[part])
                torch.mm(inner, first, out=of_x[part])
                _add_product(of_w1, inner, given[part])
                of_b1 += inner.sum(0)
            sums = gradient.sum(0)
            of_scale = torch.bmm(of_w2[:, None], w2[:, :, None].to(wide)).flatten() + sums * b2
            of_w2 *= scale[:, None]
        return (
            of_x.to(ctx.given_dtype), of_w1.to(w1.dtype), of_b1.to(ctx.b1_dtype), of_w2.to(w2.dtype),
            (sums * scale).to(b2.dtype), of_scale.to(scale.dtype), None,
        )  # fmt: skip


def _add_product(total: Tensor, one: Tensor, other: Tensor) -> None:
    """total += one^T other."""
    if total.dtype == one.dtype:
        total.addmm_(one.T, other)
    else:
        total += one.T @ other


def _chunks(hidden: Tensor) -> Iterator[slice]:
    """Ranges of rows."""
    bytes_of_row = max(hidden.shape[1] * hidden.element_size(), 1)
    step = max(_CHUNK_BYTES.get(hidden.device.type, _CHUNK_BYTES_ELSEWHERE) // bytes_of_row, 1)
    for start in range(0, hidden.shape[0], step):
        yield slice(start, start + step)
