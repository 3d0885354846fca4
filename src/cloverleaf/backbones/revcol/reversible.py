"""Back-propagation through columns that keeps their last output only (arXiv 2212.11696, section 2.1).

The published implementation adds the gradients of parameters from within, so that `torch.autograd.grad` does not see
them and none come where the stem is frozen, and it holds the graphs of a whole column. Here every level is a node of
the graph of its own: all that is differentiated is an input of it, and one level's inner graph is alive at a time. The
published one also inverts a column whose left neighbour is kept anyway; here columns are inverted only where it is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cloverleaf.backbones.revcol.column import Column, Features, Level, widened
from cloverleaf.backbones.revcol.recompute import Precision, RandomState, drawn_since, random_state, repeated

_LEVELS = 4


def run_reversibly(columns: Sequence[Column], stem: Tensor, left: Features, error: Tensor | None = None) -> Features:
    """The features of the last of ``columns``; what is kept for the backward pass are these, ``left`` and the stem.

    Gradients of a single column equal those of `Column.forward`. Those of several differ by the rounding of the
    inverse, which grows with their number and with 1 / scale; how much is measured on the way. Randomness (drop path)
    is repeated, autocast too, and BatchNorm updates its statistics once. A graph that was retained can be run again;
    gradients of gradients are refused by PyTorch.

    Args:
        columns: neighbours, in their order.
        stem: (B, C, H, W).
        left: features of the column before the first of these; none if there is none.
        error: a scalar that becomes the largest relative error of what is reconstructed and known, too, if that is
            more; None to measure nothing.
    """
    group = _Group(columns, Precision.current(stem), error if len(columns) > 1 else None)
    for n, column in enumerate(columns):
        scales = column.effective_scales()
        own: Features = ()
        for k, level in enumerate(column.levels):
            scale = scales[k : k + 1] if left else []
            own += (_Unit.apply(group, n, k, stem, *own, *left[k:], *scale, *level.parameters()),)
        left = own
    features: Features = _Anchor.apply(group, *left)
    return features


class _Group:
    """What the nodes of some columns share: how they were run, and in the backward pass the values of features."""

    def __init__(self, columns: Sequence[Column], precision: Precision, error: Tensor | None) -> None:
        self.columns, self.precision, self.error = columns, precision, error
        self.states: dict[tuple[int, int], RandomState | None] = {}
        self._values: dict[tuple[int, int], Tensor] = {}  # by column and level

    def begin(self, features: Features) -> None:
        """Start a backward pass at the last column's features."""
        self._values = {(len(self.columns) - 1, k): c for k, c in enumerate(features)}

    def value(self, n: int, k: int, stem: Tensor) -> Tensor:
        """The features of a column and level, reconstructed from the right where no node has done that before."""
        if (n, k) not in self._values:
            column = self.columns[n + 1]
            with torch.no_grad():
                residual = self.residual(n + 1, k, stem, *self.inputs(n + 1, k, stem))
                own = self.value(n + 1, k, stem)
                self.reconstructed(n + 1, k, (own - residual) / column.effective_scales()[k])
        return self._values[n, k]

    def inputs(self, n: int, k: int, stem: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What a level reads: finer maps of its own column, and coarser ones of the left one, which is in the group."""
        higher = [self.value(n - 1, j, stem) for j in range(_LEVELS - 1, k, -1)][::-1]
        return [self.value(n, j, stem) for j in range(k)], higher

    def residual(self, n: int, k: int, stem: Tensor, own: Sequence[Tensor], higher: Sequence[Tensor]) -> Tensor:
        """F of a level again, as it was."""
        level = self.columns[n].levels[k]
        with repeated(self.states[n, k], stem, level), self.precision.restored():
            return widened(level(stem, own, higher))

    def reconstructed(self, n: int, k: int, left: Tensor) -> None:
        """Keep the features of the column left of ``n``."""
        self._values[n - 1, k] = left

    def measure(self, found: Tensor, left: Tensor) -> None:
        """How well what was ``found`` by the inverse agrees with what is known."""
        if self.error is not None:
            of_one = (found - left).abs().max() / left.abs().max().clamp(min=torch.finfo(left.dtype).tiny)
            torch.maximum(self.error, of_one.to(self.error), out=self.error)

    def release(self, n: int, k: int) -> None:
        """Forget what no node needs after that of column ``n`` and level ``k``."""
        self._values.pop((n, k), None)
        if n == k == 0:
            self._values.clear()


class _Unit(torch.autograd.Function):
    """c'_k of a column from the stem, c'_0 ... c'_{k-1}, c_k ... c_3 of the left column, the scale, the parameters."""

    @staticmethod
    def forward(ctx: Any, group: _Group, n: int, k: int, stem: Tensor, *inputs: Tensor) -> Tensor:
        column = group.columns[n]
        own, left = inputs[:k], inputs[k : k + (0 if column.first else _LEVELS - k)]
        scale_and_parameters = inputs[len(own) + len(left) :]
        state = random_state(stem)
        with group.precision.restored():
            residual = widened(column.levels[k](stem, own, left[1:]))
        group.states[n, k] = state if drawn_since(state, stem) else None
        ctx.group, ctx.n, ctx.k = group, n, k
        ctx.set_materialize_grads(False)
        # Kept without need for memory: parameters, so that a change of them is noticed, and what the last group keeps.
        kept = left if n == 0 else ()
        ctx.save_for_backward(stem, *kept, *scale_and_parameters)
        return scale_and_parameters[0] * left[0] + residual if left else residual

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upper: Tensor | None) -> tuple[Any, ...]:
        if upper is None:
            return (None,) * len(ctx.needs_input_grad)
        group, n, k = ctx.group, ctx.n, ctx.k
        stem, *others = ctx.saved_tensors
        first_of_all = group.columns[n].first
        left = [others.pop(0) for _ in range(k, _LEVELS)] if n == 0 and not first_of_all else []
        own, higher = ([group.value(n, j, stem) for j in range(k)], left[1:]) if n == 0 else group.inputs(n, k, stem)
        residual, found = _gradients(group, n, k, ctx.needs_input_grad[3], (stem, own, higher), upper)
        of_left: list[Tensor | None] = []
        if first_of_all:
            group.measure(residual, group.value(n, k, stem))
        else:
            scale = others[0]
            inverse = (group.value(n, k, stem) - residual) / scale
            if n == 0:
                group.measure(inverse, left[0])
            else:
                group.reconstructed(n, k, inverse)
            of_scale = (upper * (left[0] if n == 0 else inverse)).sum((0, 2, 3), keepdim=True)
            of_left = [scale * upper, *found[1 + k : 1 + k + len(higher)], of_scale]
        group.release(n, k)
        return (None, None, None, found[0], *found[1 : 1 + k], *of_left, *found[1 + k + len(higher) :])


def _gradients(
    group: _Group, n: int, k: int, stem_learns: bool, inputs: tuple[Tensor, list[Tensor], list[Tensor]], upper: Tensor
) -> tuple[Tensor, list[Tensor | None]]:
    """F of a level, and what its gradients say of the stem, the features that it reads and its parameters."""
    level: Level = group.columns[n].levels[k]  # type: ignore[assignment]
    parameters = list(level.parameters())
    stem, own, higher = (
        inputs[0].detach().requires_grad_(stem_learns),
        [c.detach().requires_grad_() for c in inputs[1]],
        [c.detach().requires_grad_() for c in inputs[2]],
    )
    with torch.enable_grad():
        residual = group.residual(n, k, stem, own, higher)
    leaves = [stem, *own, *higher, *parameters]
    learning = [leaf for leaf in leaves if leaf.requires_grad]
    found = iter(torch.autograd.grad(residual, learning, upper.to(residual.dtype), allow_unused=True))
    return residual.detach(), [next(found) if leaf.requires_grad else None for leaf in leaves]


class _Anchor(torch.autograd.Function):
    """Features that are kept, and from which those to the left are reconstructed."""

    @staticmethod
    def forward(ctx: Any, group: _Group, *features: Tensor) -> Features:
        ctx.group = group
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*features)
        return features

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        ctx.group.begin(tuple(c.detach() for c in ctx.saved_tensors))
        return (None, *gradients)
