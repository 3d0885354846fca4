"""Planned re-parameterised convolution (arXiv 2207.02696, section 4.1): where RepConv may keep its identity branch.

A residual connection or a concatenation already carries the input of a block past it. The identity branch of a RepConv
in front of one would do the same once more and take diversity from the gradients, so it must go there (RepConvN).
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cloverleaf.layers.conv import ConvNormAct
from cloverleaf.layers.rep_conv import RepConv
from cloverleaf.layers.style import Style

ConvKind = Literal["conv", "rep", "rep-planned"]
Place = Literal["plain", "residual", "concatenation"]

_CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)
_SUMS = (torch.add, torch.Tensor.add, torch.Tensor.add_, torch.Tensor.__add__, torch.Tensor.__radd__, operator.add)
_CARRIERS = (torch.Tensor.contiguous, torch.Tensor.to, torch.Tensor.float, torch.Tensor.chunk, torch.chunk)


def identity_allowed(place: Place) -> bool:
    """Whether a RepConv at this place may have its identity branch."""
    return place == "plain"


def conv3x3(
    kind: ConvKind, in_channels: int, out_channels: int, stride: int = 1, *, place: Place, style: Style
) -> ConvNormAct | RepConv:
    """A 3x3 convolution block of the wanted kind for a known place.

    Args:
        kind: `conv` is plain; `rep` is a RepConv with its identity branch wherever shapes allow it; `rep-planned` drops
            that branch where ``place`` forbids it.
        in_channels, out_channels, stride, style: as in `ConvNormAct`.
        place: what the output goes into.
    """
    if kind == "conv":
        return ConvNormAct(in_channels, out_channels, 3, stride, style=style)
    identity = kind == "rep" or identity_allowed(place)
    return RepConv(in_channels, out_channels, stride, style=style, identity=identity)


def find_places(model: nn.Module, run: Callable[[nn.Module], Any]) -> dict[str, Place]:
    """What each `RepConv` in ``model`` feeds, seen by running it once: a sum, a concatenation or neither.

    Args:
        model: any module; its state is not changed apart from what ``run`` does.
        run: calls the model on an example, e.g. ``lambda m: m(torch.zeros(1, 3, 64, 64))``.

    Returns:
        Place by the path of the module. A residual connection counts before a concatenation where both follow.
    """
    names = {module: name for name, module in model.named_modules() if isinstance(module, RepConv)}
    watcher = _Watcher()
    hooks = [module.register_forward_hook(watcher.produced(name)) for module, name in names.items()]
    try:
        with torch.no_grad(), watcher:
            run(model)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: watcher.places.get(name, "plain") for name in names.values()}


def plan(model: nn.Module, run: Callable[[nn.Module], Any]) -> nn.Module:
    """A copy of ``model`` whose RepConvs have no identity branch where a sum or a concatenation follows.

    Args:
        model, run: as in `find_places`. To be done before training: the dropped branches are lost.
    """
    planned = copy.deepcopy(model)
    for name, place in find_places(model, run).items():
        if not identity_allowed(place):
            conv = planned.get_submodule(name)
            assert isinstance(conv, RepConv)
            conv.identity_norm = None
    return planned


class _Watcher(TorchFunctionMode):
    """Follows the outputs of named modules into sums and concatenations."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, Place] = {}
        self._producer: dict[int, str] = {}
        self._ancestors: dict[int, frozenset[str]] = {}  # whose outputs a tensor was computed from
        self._kept: list[Any] = []  # so that an id stays its tensor's own

    def produced(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        """A forward hook that marks the output of module ``name``."""

        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._producer[id(output)] = name
            self._ancestors[id(output)] = self._ancestors.get(id(output), frozenset()) | {name}

        return hook

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        operands = args[0] if args and isinstance(args[0], tuple | list) else args
        if func in _CONCATENATIONS:
            for tensor in operands or kwargs["tensors"]:
                self._meet(tensor, "concatenation")
        elif func in _SUMS and len(args) > 1:
            for value, other in (args[:2], args[1::-1]):
                # A value that the other one was computed from is the shortcut itself, not the layer that it bypasses.
                if self._producer.get(id(value)) not in self._ancestors.get(id(other), ()):
                    self._meet(value, "residual")
        from_all = frozenset[str]().union(*(self._ancestors.get(id(value), ()) for value in operands))
        self._kept.append(result)
        for part in result if isinstance(result, tuple | list) else (result,):
            if isinstance(part, Tensor):
                self._ancestors[id(part)] = from_all
                if func in _CARRIERS and id(args[0]) in self._producer:
                    self._producer[id(part)] = self._producer[id(args[0])]
        return result

    def _meet(self, value: Any, place: Place) -> None:
        name = self._producer.get(id(value))
        if name is not None and self.places.get(name) != "residual":
            self.places[name] = place
