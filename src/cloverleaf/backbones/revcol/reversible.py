"""Back-propagation through columns that keeps their last output only (arXiv 2212.11696, section 2.1).

The published implementation adds the gradients of parameters from within, so that `torch.autograd.grad` does not see
them and none come where the stem is frozen, and it holds the graphs of a whole column. Here all that is differentiated
is an input of the function, and the graph of one level is alive at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from cloverleaf.backbones.revcol.column import Column, Features, widened

_LEVELS = 4


@dataclass(slots=True)
class _Setting:
    """What a recomputation needs to repeat a forward pass bit for bit."""

    device: str
    autocast: bool
    dtype: torch.dtype
    random: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)

    @contextmanager
    def precision(self) -> Iterator[None]:
        """The autocast state of the forward pass; casts are not kept, as those made without gradients would be used."""
        with torch.autocast(self.device, dtype=self.dtype, enabled=self.autocast, cache_enabled=False):
            yield


class _Columns(torch.autograd.Function):
    """Several columns as one function of the stem, the left features, the scales and all parameters."""

    @staticmethod
    def forward(ctx: Any, columns: Sequence[Column], stem: Tensor, *inputs: Tensor) -> Features:
        has_left = not columns[0].first
        left: Features = inputs[:_LEVELS] if has_left else ()
        scales = inputs[len(left) : len(left) + sum(len(column.scales) for column in columns)]
        device = stem.device.type
        setting = _Setting(device, torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        given, features = iter(scales), left
        for column in columns:
            of_column = [next(given) for _ in column.scales]
            own: list[Tensor] = []
            for k, level in enumerate(column.levels):
                setting.random.append(_random_state(stem))
                with setting.precision():
                    residual = widened(level(stem, own, features[k + 1 :]))
                own.append(of_column[k] * features[k] + residual if features else residual)
            features = tuple(own)
        ctx.columns, ctx.setting, ctx.has_left = columns, setting, has_left
        ctx.save_for_backward(stem, *scales, *features)
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        stem, scales, features = saved[0], list(saved[1:-_LEVELS]), saved[-_LEVELS:]
        columns: Sequence[Column] = ctx.columns
        upper = [torch.zeros_like(c) if g is None else g for c, g in zip(features, gradients, strict=True)]
        of_stem: Tensor | None = None
        of_scales: list[Tensor | None] = []
        of_parameters: list[list[Tensor | None]] = []
        states = list(ctx.setting.random)
        with torch.random.fork_rng([stem.device] if stem.is_cuda else [], device_type=stem.device.type), _once(columns):
            for column in reversed(columns):
                of_column = [scales.pop() for _ in column.scales][::-1]
                back = _Backward(column, stem, ctx.needs_input_grad[1], features, of_column, upper)
                for k in reversed(range(_LEVELS)):
                    back.level(k, ctx.setting, states.pop())
                of_stem = _sum(of_stem, back.of_stem)
                of_scales = [*back.of_scales, *of_scales]
                of_parameters.insert(0, [g for level in back.of_parameters for g in level])
                features, upper = back.left, back.of_left
        flat = [g for of_one in of_parameters for g in of_one]
        return (None, of_stem, *(upper if ctx.has_left else ()), *of_scales, *flat)


class _Backward:
    """The backward pass of one column, level by level from the coarsest: residual again, its gradients, the inverse."""

    def __init__(
        self, column: Column, stem: Tensor, stem_learns: bool, own: Features, scales: list[Tensor], upper: list[Tensor]
    ) -> None:
        self.column, self.stem, self.stem_learns = column, stem.detach(), stem_learns
        self.own, self.scales, self.upper = own, scales, list(upper)
        count = 0 if column.first else _LEVELS
        self._left: list[Tensor | None] = [None] * count
        self._reached: list[Tensor | None] = [None] * count  # what later levels of this column say about the left ones
        self.of_stem: Tensor | None = None
        self.of_scales: list[Tensor | None] = [None] * count
        self.of_parameters: list[list[Tensor | None]] = [[] for _ in range(_LEVELS)]

    def level(self, k: int, setting: _Setting, state: tuple[Tensor, Tensor | None]) -> None:
        """Level ``k``; those above it are done."""
        level, parameters = self.column.levels[k], list(self.column.levels[k].parameters())
        stem = self.stem.requires_grad_(self.stem_learns) if k == 0 or self.stem_learns else self.stem
        own = [c.detach().requires_grad_() for c in self.own[:k]]
        higher = [c.detach().requires_grad_() for c in self._left[k + 1 :] if c is not None]
        _set_random_state(state, stem)
        with torch.enable_grad(), setting.precision():
            residual = level(stem, own, higher)
        wanted = [*([stem] if stem.requires_grad else []), *own, *higher, *(p for p in parameters if p.requires_grad)]
        found = iter(torch.autograd.grad(residual, wanted, self.upper[k].to(residual.dtype), allow_unused=True))
        if stem.requires_grad:
            self.of_stem = _sum(self.of_stem, next(found))
        for j in range(k):
            self.upper[j] = _total(self.upper[j], next(found))
        for j in range(k + 1, k + 1 + len(higher)):
            self._reached[j] = _sum(self._reached[j], next(found))
        self.of_parameters[k] = [next(found) if p.requires_grad else None for p in parameters]
        if not self.column.first:
            left = (self.own[k] - widened(residual.detach())) / self.scales[k]
            self._left[k] = left
            self.of_scales[k] = (self.upper[k] * left).sum((0, 2, 3), keepdim=True)

    @property
    def left(self) -> Features:
        """The features of the left column, reconstructed."""
        return tuple(c for c in self._left if c is not None)

    @property
    def of_left(self) -> list[Tensor]:
        """Their gradients."""
        return [
            _total(scale * upper, reached)
            for scale, upper, reached in zip(self.scales, self.upper, self._reached, strict=False)
        ]


def run_reversibly(columns: Sequence[Column], stem: Tensor, left: Features) -> Features:
    """The features of the last of ``columns``; all that is kept for the backward pass are these and the stem.

    Gradients equal those of `Column.forward` up to the rounding of the inverse, which grows with the number of columns
    and with 1 / scale. Randomness (drop path) is repeated, autocast too, and BatchNorm updates its statistics once.
    Gradients of gradients are refused by PyTorch.

    Args:
        columns: neighbours, in their order.
        stem: (B, C, H, W).
        left: features of the column before the first of these; none if there is none.
    """
    scales = [scale for column in columns for scale in column.effective_scales()]
    parameters = [p for column in columns for level in column.levels for p in level.parameters()]
    features: Features = _Columns.apply(columns, stem, *left, *scales, *parameters)
    return features


@contextmanager
def _once(columns: Sequence[nn.Module]) -> Iterator[None]:
    """BatchNorm normalises by the batch again but leaves its statistics as the forward pass made them."""
    norms = [m for column in columns for m in column.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    norms = [norm for norm in norms if norm.training]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _random_state(like: Tensor) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(like.device) if like.is_cuda else None


def _set_random_state(state: tuple[Tensor, Tensor | None], like: Tensor) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], like.device)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one + other


def _total(one: Tensor, other: Tensor | None) -> Tensor:
    return one if other is None else one + other
