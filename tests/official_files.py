"""Writes checkpoint files of exactly the structure in which the published YOLO repositories release theirs.

Whole module objects are pickled, so the pickles name classes such as ``models.yolo.Model``. Those classes are made up
here and live in `sys.modules` only while a file is written.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

COMMON = ("Conv", "RepConv", "DownC", "SPPCSPC", "MP", "SP", "Concat", "ReOrg", "Shortcut", "ImplicitA", "ImplicitM",
          "Bottleneck", "BottleneckCSPA", "BottleneckCSPB", "BottleneckCSPC", "BottleneckCSP", "BottleneckCSP2",
          "SPPCSP", "DWT")  # fmt: skip
YOLO = ("Model", "Detect", "IDetect", "IAuxDetect", "IBin")
_CLASSES: dict[str, type[nn.Module]] = {
    name: type(name, (nn.Module,), {"__module__": module, "__doc__": f"Stands in for {module}.{name}."})
    for module, names in (("models.common", COMMON), ("models.yolo", YOLO))
    for name in names
}
_BY_CHILD = (("anchors", ""), ("rbr_dense", "RepConv"), ("rbr_reparam", "RepConv"), ("cv7", "SPPCSPC"),
             ("cv4", "BottleneckCSPC"), ("m", "BottleneckCSPB"), ("cv3", "DownC"), ("cv2", "Bottleneck"),
             ("conv", "Conv"))  # fmt: skip
_WITH_SHARED_NORM = {"SPPCSPC": "SPPCSP", "BottleneckCSPC": "BottleneckCSP", "BottleneckCSPB": "BottleneckCSP2"}


@contextmanager
def stand_ins(classes: Iterable[type[nn.Module]] = tuple(_CLASSES.values())) -> Iterator[None]:
    """The made-up classes can be found by their names while this lasts."""
    modules: dict[str, ModuleType] = {}
    for cls in classes:
        parts = cls.__module__.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            modules.setdefault(name, ModuleType(name))
        setattr(modules[cls.__module__], cls.__name__, cls)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def official_model(
    state: Mapping[str, Tensor],
    *,
    names: list[str] | None = None,
    half: bool = True,
    activation: nn.Module | None = None,
    plain: tuple[str, ...] = (),
) -> nn.Module:
    """A module tree whose state dict is ``state``, with the attributes and the row classes of the published one.

    The activation is SiLU where None; ``plain`` are the classes of the first rows, which have no parameters.
    """
    tree: dict[str, Any] = {}
    for key, value in state.items():
        *path, leaf = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    rows = tree.get("model", {})
    last = max(map(int, rows), default=0)
    model = _CLASSES["Model"]()
    model.model = nn.Sequential(*(_row(i, rows.get(str(i)), plain) for i in range(last + 1)))
    for module in model.modules():
        if type(module).__name__ in ("Conv", "RepConv"):
            module.act = activation or nn.SiLU()
    levels = state[f"model.{last}.anchors"].shape[0]
    classes = state[f"model.{last}.m.0.bias"].numel() // 3 - 5
    stride = torch.tensor([8.0, 16.0, 32.0, 64.0][:levels])
    head = model.model[-1]
    head.nc, head.no, head.nl, head.na, head.stride = classes, classes + 5, levels, 3, stride
    head.grid = [torch.zeros(1)] * levels
    model.yaml = {"nc": classes, "depth_multiple": 1.0, "anchors": [[1, 2]], "backbone": [[-1, 1, "Conv", [32, 3, 1]]]}
    model.nc, model.names, model.stride = classes, names or [f"class {i}" for i in range(classes)], stride
    model.hyp, model.gr, model.class_weights = {"lr0": 0.01}, 1.0, torch.ones(classes)
    model.save, model.traced, model.inplace = [4, 6], False, True
    return model.half() if half else model


def stripped(model: nn.Module) -> dict[str, Any]:
    """A finished training run."""
    return {"epoch": -1, "best_fitness": np.array([0.51]), "training_results": None, "model": model, "ema": None,
            "updates": None, "optimizer": None, "wandb_id": None}  # fmt: skip


def running(model: nn.Module, ema: nn.Module) -> dict[str, Any]:
    """An unfinished training run."""
    state = {number: {"momentum_buffer": torch.ones(3)} for number in range(3)}
    group = {"lr": 0.01, "momentum": 0.9, "nesterov": True, "params": [0, 1, 2]}
    return {
        "epoch": 37,
        "best_fitness": np.float64(0.5),
        "training_results": "37/299  1.2G\n",
        "model": model,
        "ema": ema,
        "updates": 1234,
        "optimizer": {"state": state, "param_groups": [group]},
        "wandb_id": "x1",
    }


def reparameterised(model: nn.Module) -> dict[str, Any]:
    """After the published conversion to the deploy form."""
    return {"model": model, "optimizer": None, "training_results": None, "epoch": -1}


def write(
    path: Path, content: object, *, legacy: bool = False, classes: Iterable[type[nn.Module]] = tuple(_CLASSES.values())
) -> Path:
    """Save as the repositories do, with modules of ``classes``; ``legacy`` as torch before 1.6 did."""
    with stand_ins(classes), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no source code for the made-up classes
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def published_state(model: Any, *, seed: int = 0) -> dict[str, Tensor]:
    """Published names with random values that survive rounding to float16, for a detector of ours."""
    from cloverleaf.weights import export_state_dict

    generator = torch.Generator().manual_seed(seed)
    state = export_state_dict(model)
    return {key: _random(key, value, generator) for key, value in state.items()}


def random_state(keys: str, *, seed: int = 0) -> dict[str, Tensor]:
    """Random values for the text of a ``keys/*.txt`` file (name, shape and type per line)."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for line in keys.splitlines():
        name, shape, dtype = line.split("\t")
        size = tuple(int(side) for side in shape.strip("()").split(",") if side.strip())
        state[name] = _random(name, torch.zeros(size, dtype=getattr(torch, dtype)), generator)
    return state


def half_apart(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Other weights of the same names: floating-point values halved, anchors kept."""
    return {k: v / 2 if v.is_floating_point() and "anchor" not in k else copy.copy(v) for k, v in state.items()}


def _random(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    if name.startswith("detect.proj"):
        return torch.arange(17.0).reshape(like.shape)
    if not like.is_floating_point() or "anchor" in name:
        return like.clone()
    value = torch.rand(like.shape, generator=generator) if like.numel() < 2**16 else torch.rand(1).expand(like.shape)
    spread = 0.05 if like.ndim == 4 else 0.5
    return (
        (value * spread + (0.5 if name.endswith(("running_var", "bn.weight", "im.0.implicit")) else 0)).half().float()
    )


def _row(index: int, parts: dict[str, Any] | None, plain: tuple[str, ...] = ()) -> nn.Module:
    if parts is None and index < len(plain):
        module = _CLASSES[plain[index]]()
    elif parts is None:  # rows without parameters
        module = [nn.Upsample(None, 2, "nearest"), _CLASSES["Concat"](), _CLASSES["MP"]()][index % 3]
        if isinstance(module, _CLASSES["MP"]):
            module.m = nn.MaxPool2d(2, 2)
    else:
        module = _module("", parts)
    module.i, module.f, module.type, module.np = index, -1, type(module).__name__, 0
    return module


def _module(name: str, parts: dict[str, Any]) -> nn.Module:
    if "running_mean" in parts:
        return filled(nn.BatchNorm2d(len(parts["weight"]), eps=1e-3, momentum=0.03, device="meta"), parts)
    if "weight" in parts and parts["weight"].ndim == 4:
        out, width, kernel, _ = parts["weight"].shape
        return filled(nn.Conv2d(width, out, kernel, padding=kernel // 2, bias="bias" in parts, device="meta"), parts)
    if all(key.isdigit() for key in parts):
        kind = nn.Sequential if name.startswith("rbr_") else nn.ModuleList
        return kind([_module(name, part) for part in parts.values()]) if kind is nn.ModuleList else kind(
            *(_module(name, part) for part in parts.values()))  # fmt: skip
    if "anchors" in parts:
        kind_name = "IAuxDetect" if "m2" in parts else "IDetect" if "ia" in parts else "Detect"
    elif "implicit" in parts:
        kind_name = "ImplicitA" if name == "ia" else "ImplicitM"
    else:
        kind_name = next(kind for child, kind in _BY_CHILD if child in parts)
        kind_name = _WITH_SHARED_NORM.get(kind_name, kind_name) if "bn" in parts else kind_name
    module = _CLASSES[kind_name]()
    for key, part in parts.items():
        if isinstance(part, dict):
            module.add_module(key, _module(key, part))
        elif key.startswith("anchor"):
            module.register_buffer(key, part)
        else:
            module.register_parameter(key, nn.Parameter(part, requires_grad=False))
    return module


def filled(module: nn.Module, parts: Mapping[str, Tensor]) -> nn.Module:
    """``module`` with these tensors for its own."""
    for key, value in parts.items():
        if key in module._parameters:
            setattr(module, key, nn.Parameter(value, requires_grad=False))
        else:
            module._buffers[key] = value
    return module
