"""Where a model holds implicit knowledge, and what it has learned there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cloverleaf.layers.implicit import Implicit, ImplicitFactorisation, ImplicitNetwork
from cloverleaf.models.detector import Detector

Array = npt.NDArray[np.float64]
_PLACES = {"add": "align", "multiply": "refine"}  # of an anchor head's modules that are named after an operator
_NO_PLACES = ("levels", "start")  # words of a path that tell nothing of the place


@dataclass(frozen=True, slots=True)
class Knowledge:
    """One module of implicit knowledge.

    Attributes:
        path: of the module in the model.
        place: the path without the numbers of levels: modules of one place belong together.
        label: what sets it apart within its place: the stride of its map, or its number.
        operator: add, multiply, concatenate, gate or inner.
        modelling: vector, network or factorisation.
        values: (C,) what the operator takes; (K, C) of an inner product; NaN in channels that it leaves alone.
        parts: what it is made of by name, where it is more than a vector.
        start: mean of the values when training began, with the deviation `START_STD` of `cloverleaf.layers.implicit`;
            None where they began otherwise.
        stride: input pixels per cell of its map, or None where it is no map.
    """

    path: str
    place: str
    label: str
    operator: str
    modelling: str
    values: Array
    parts: Mapping[str, Array]
    start: float | None
    stride: int | None

    @property
    def learned(self) -> Array:
        """(n,): `values` of the channels that it acts on."""
        flat: Array = self.values[np.isfinite(self.values)]
        return flat

    @property
    def neutral(self) -> float:
        """The value that does nothing, of an addition or multiplication."""
        return 1.0 if self.operator == "multiply" else 0.0


def is_implicit(module: nn.Module) -> bool:
    """Whether a module holds implicit knowledge."""
    return isinstance(module, Implicit)


def find_knowledge(model: Detector) -> tuple[Knowledge, ...]:
    """All of it, places together, finest level first."""
    modules = [(path, module) for path, module in model.named_modules() if isinstance(module, Implicit)]
    strides = _strides(model, [path for path, _ in modules])
    found = [_opened(path, module, strides.get(path)) for path, module in modules]
    places = list(dict.fromkeys(one.place for one in found))
    ordered = sorted(found, key=lambda one: (places.index(one.place), one.label.split(", ")[:-1], one.stride or 0))
    return tuple(_told_apart(ordered))


def _told_apart(found: Sequence[Knowledge]) -> list[Knowledge]:
    """With the name of the module in labels that would be the same within a place."""
    count = Counter((one.place, one.label) for one in found)
    return [
        one if count[one.place, one.label] == 1 else replace(one, label=f"{one.label}, {_module(one.path)}")
        for one in found
    ]


def _module(path: str) -> str:
    """``down_merge`` of ``neck.down_merge.0.merge.act.implicit``."""
    return path.split(".")[1]


def by_place(found: Sequence[Knowledge]) -> list[tuple[str, list[Knowledge]]]:
    """Name of each place and what is there."""
    return [(place, list(group)) for place, group in groupby(found, key=lambda one: one.place)]


@torch.no_grad()
def _opened(path: str, module: Implicit, stride: int | None) -> Knowledge:
    place, task = _place(path)
    numbers = [int(part) for part in path.split(".") if part.isdigit()]
    label = f"stride {stride}" if stride else f"{numbers[0] + 1}" if numbers else place.split(".")[-1]
    values = module.constant().double()
    if module.only is not None:
        values = torch.full_like(values, torch.nan).index_copy(0, module.only, values[module.only])
    return Knowledge(
        path=path,
        place=place,
        label=f"{task}, {label}" if task else label,
        operator=module.operator,
        modelling=module.modelling,
        values=values.cpu().numpy(),
        parts=_parts(module),
        start=_start(module),
        stride=stride,
    )


def _place(path: str) -> tuple[str, str]:
    """Name of the place, and of the task where places of several tasks belong together."""
    words = [part for part in path.split(".") if not part.isdigit() and part not in _NO_PLACES]
    if words[0] == "neck":
        return "neck.align", ""
    if words[0] == "head" and words[-1] == "task":
        return "head.task", ", ".join(words[1:-1])
    return ".".join([*words[:-1], _PLACES.get(words[-1], words[-1])]), ""


def _parts(module: Implicit) -> dict[str, Array]:
    found: dict[str, Tensor] = {}
    if isinstance(module, ImplicitNetwork):
        found = {"prior z": module.prior, "weight W": module.weight, "bias b": module.bias}
    elif isinstance(module, ImplicitFactorisation):
        found = {"basis Z": module.basis, "coefficients c": module.effective_coefficients()}
    return {name: value.detach().double().cpu().numpy() for name, value in found.items()}


def _start(module: Implicit) -> float | None:
    if module.modelling != "vector" or module.operator == "inner":
        return None
    return 1.0 if module.operator == "multiply" else 0.0


@torch.no_grad()
def _strides(model: Detector, paths: Sequence[str]) -> dict[str, int]:
    """Input pixels per cell of the maps that come to the modules, seen on an empty image."""
    side = 2 * model.max_stride
    strides: dict[str, int] = {}

    def hook(path: str) -> Any:
        def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if inputs[0].dim() == 4 and inputs[0].shape[-1] > 1:
                strides[path] = side // inputs[0].shape[-1]

        return keep

    handles = [model.get_submodule(path).register_forward_pre_hook(hook(path)) for path in paths]
    try:
        model(torch.zeros(1, 3, side, side, device=next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return strides
