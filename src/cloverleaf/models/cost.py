"""What a detector costs: parameters, operations and output shapes per stage, measured without computing anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cloverleaf.layers.implicit import Implicit
from cloverleaf.models.catalog import empty_detector
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import DetectorSpec
from cloverleaf.structures import AnchorOutput, DenseOutput


@dataclass(frozen=True, slots=True)
class StageCost:
    """One stage of a detector.

    Attributes:
        name: path of the module.
        type: its class.
        shape: of its output for one image, without the batch axis: (channels, height, width), or (channels,).
        stride: input pixels per output cell; of an output without cells the height of the input.
        params: number of learned values.
        flops: 2 x multiply-accumulates for one image.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    stride: int
    params: int
    flops: int


@dataclass(frozen=True, slots=True)
class ModelCost:
    """A whole detector, for one image of ``size_hw``.

    Attributes:
        size_hw: of the input.
        stages: those with parameters, in the order of execution.
        params: number of learned values.
        flops: 2 x multiply-accumulates of convolutions and matrix products; other operations are not counted.
        norm_values: values that pass through a normalisation layer (some counters charge for them).
        implicit_params: learned values that are implicit knowledge, of ``params``.
    """

    size_hw: tuple[int, int]
    stages: tuple[StageCost, ...]
    params: int
    flops: int
    norm_values: int
    implicit_params: int = 0


@lru_cache(maxsize=256)
def measure(spec: DetectorSpec, size_hw: tuple[int, int]) -> ModelCost:
    """Count with `torch.utils.flop_counter` on a model without storage, so that even the largest takes a moment.

    Raises:
        ConfigError: ``size_hw`` does not fit the model's strides.
    """
    model = empty_detector(replace(spec, fused=False)).to("meta")
    if spec.fused:  # only now, as fusing copies
        model = model.fused()
    images = torch.empty(1, 3, *size_hw, device="meta")
    outputs: dict[str, tuple[int, ...]] = {}
    norm_values: list[int] = []
    for name, module in model.named_modules():
        module.register_forward_hook(_keep_shape(name, outputs))
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda _m, _x, y: norm_values.append(y.numel()))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(images)
    flops = counter.get_flop_counts()
    modules = dict(stage for part in ("backbone", "neck", "head") for stage in _opened(model, part, outputs))
    stages = tuple(
        StageCost(
            name=name,
            type=type(modules[name]).__name__,
            shape=outputs[name][1:],
            stride=_stride(size_hw[0], outputs[name]),
            params=_params(modules[name]),
            flops=sum(flops.get(f"Detector.{name}", {}).values()),
        )
        for name in outputs  # in the order of execution
        if name in modules and _params(modules[name])
    )
    implicit = sum(_params(module) for module in model.modules() if isinstance(module, Implicit))
    return ModelCost(size_hw, stages, _params(model), counter.get_total_flops(), sum(norm_values), implicit)


def _stride(height: int, shape: tuple[int, ...]) -> int:
    if len(shape) < 3:
        return height
    return 1 << round(math.log2(height / shape[2]))  # sizes are rounded up


def _keep_shape(name: str, outputs: dict[str, tuple[int, ...]]) -> Callable[[nn.Module, Any, Any], None]:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
            output = output[0]  # what follows the first is a by-product
        if isinstance(output, Tensor):
            outputs[name] = tuple(output.shape)
        elif isinstance(output, AnchorOutput):
            outputs[name] = tuple(output.levels[0].shape)
        elif isinstance(output, DenseOutput):
            outputs[name] = tuple(output.logits.shape)

    return hook


def _opened(model: Detector, path: str, ran: Container[str]) -> Iterator[tuple[str, nn.Module]]:
    """What is inside ``path``: every child that gave a map; the others, such as lists of modules, are opened."""
    for name, module in model.get_submodule(path).named_children():
        inside = f"{path}.{name}"
        if inside in ran:
            yield inside, module
        else:
            yield from _opened(model, inside, ran)


def _params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
