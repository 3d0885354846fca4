"""Where a model holds implicit knowledge, what it has learned there, and which outputs it refines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cloverleaf.heads.anchor_based import AnchorHead
from cloverleaf.layers.implicit import Implicit, ImplicitFactorisation, ImplicitNetwork
from cloverleaf.models.detector import Detector
from cloverleaf.ops.cells import box_channels

Array = npt.NDArray[np.float64]
START_STD = 0.02  # of vectors when training begins
_NAMES = {"add": "align", "multiply": "refine"}  # of modules whose name is that of their operator


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
        start: mean of the values when training began, `START_STD` their deviation; None where they began otherwise.
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


@dataclass(frozen=True, slots=True)
class OutputNames:
    """What the channels of a head's last convolution are.

    Attributes:
        rows: anchors as ``10 x 13``.
        columns: x, y, w, h, obj and classes.
        anchors_px: (A, 2).
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    anchors_px: Array


def is_implicit(module: nn.Module) -> bool:
    """Whether a module holds implicit knowledge."""
    return isinstance(module, Implicit)


def find_knowledge(model: Detector) -> tuple[Knowledge, ...]:
    """All of it, places together, finest level first."""
    modules = [(path, module) for path, module in model.named_modules() if isinstance(module, Implicit)]
    strides = _strides(model, [path for path, _ in modules])
    found = [_opened(path, module, strides.get(path)) for path, module in modules]
    places = list(dict.fromkeys(one.place for one in found))
    return tuple(sorted(found, key=lambda one: (places.index(one.place), one.stride or 0)))


def by_place(found: Sequence[Knowledge]) -> list[tuple[str, list[Knowledge]]]:
    """Name of each place and what is there."""
    return [(place, list(group)) for place, group in groupby(found, key=lambda one: one.place)]


def output_names(model: Detector, knowledge: Knowledge) -> OutputNames | None:
    """What the channels of this knowledge are where they are outputs of an anchor head's level; None elsewhere."""
    head = model.head
    level = [part for part in knowledge.path.split(".") if part.isdigit()]
    if not isinstance(head, AnchorHead) or not knowledge.path.startswith("head.levels.") or not level:
        return None
    names = model.metadata.class_names if model.metadata else ()
    classes = names if len(names) == head.num_classes else tuple(f"class {k}" for k in range(head.num_classes))
    sides = [f"{side}{k}" for side in "wh" for k in ("", *(f" bin {b + 1}" for b in range(head.bins)))]
    columns = ("x", "y", *sides, "obj", *classes)
    assert len(columns) == box_channels(head.bins) + 1 + head.num_classes
    anchors = head.anchors_px[int(level[0])].double().cpu().numpy()
    if knowledge.values.size != len(anchors) * len(columns):
        return None
    return OutputNames(tuple(f"{w:g} x {h:g}" for w, h in anchors), columns, anchors)


@torch.no_grad()
def _opened(path: str, module: Implicit, stride: int | None) -> Knowledge:
    words = [part for part in path.split(".") if not part.isdigit() and part != "levels"]
    numbers = [int(part) for part in path.split(".") if part.isdigit()]
    words[-1] = _NAMES.get(words[-1], words[-1])
    values = module.constant().double()
    if module.only is not None:
        values = torch.full_like(values, torch.nan).index_copy(0, module.only, values[module.only])
    return Knowledge(
        path=path,
        place=".".join(words),
        label=f"stride {stride}" if stride else f"{numbers[0] + 1}" if numbers else words[-1],
        operator=module.operator,
        modelling=module.modelling,
        values=values.cpu().numpy(),
        parts=_parts(module),
        start=_start(module),
        stride=stride,
    )


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
