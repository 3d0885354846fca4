"""What every variation costs: parameters, operations, and latency measured for all of them in one go."""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cloverleaf.ablation.items import Variation
from cloverleaf.data.cpus import usable_cpus
from cloverleaf.evaluation.config import EvalConfig
from cloverleaf.models.catalog import build_detector, empty_detector
from cloverleaf.models.cost import measure
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import DetectorSpec, Task
from cloverleaf.predict.device import resolve_device, synchronize
from cloverleaf.predict.model import prepare_model

ROUNDS = 100
_SECONDS = 60.0  # a study of large models gets fewer rounds, but never fewer than
_LEAST_ROUNDS = 10


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Cost:
    """Of one variation.

    Attributes:
        form: identifies structure and input; variations of equal form are measured once.
        parameters: of the fused form.
        training_parameters: of the form that is trained.
        flops: 2 x multiply-accumulates of the fused form's forward pass for one image.
        image_size: side of that image in pixels.
        latency_ms: of a prediction, fused, eager, float32, one image: the fastest round, as other work on the machine
            can only add to it; None if not measured.
        relative: the same over the baseline's.
    """

    form: str
    parameters: int
    training_parameters: int
    flops: int
    image_size: int
    latency_ms: float | None = None
    relative: float | None = None


def count(variation: Variation) -> Cost:
    """Parameters and operations."""
    return _count(variation.spec, variation.config.data.image_size)


@cache
def _count(spec: DetectorSpec, size: int) -> Cost:
    """Once for all variations of the recipe."""
    fused = measure(spec.as_fused(), (size, size))
    return Cost(
        form=_form(spec, size),
        parameters=fused.params,
        training_parameters=measure(spec, (size, size)).params,
        flops=fused.flops,
        image_size=size,
    )


class _Operations(TorchDispatchMode):
    """Lists every operation with the shapes that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [item for arg in args for item in (arg if isinstance(arg, list | tuple) else (arg,))]
        self.seen.append(f"{func} {[tuple(x.shape) if isinstance(x, Tensor) else x for x in given]}")
        return func(*args, **(kwargs or {}))


def _form(spec: DetectorSpec, size: int) -> str:
    """The same for detectors that do the same operations once fused, however they were trained."""
    model, operations = empty_detector(spec.as_fused()).to("meta"), _Operations()
    with torch.no_grad(), operations:
        model(torch.empty(1, 3, size, size, device="meta"))
    known = spec.task in ("detect", "multi", "classify")
    what_follows = [] if known else [repr(spec.head)]  # its work depends on values
    return hashlib.sha256("\n".join([*operations.seen, *what_follows]).encode()).hexdigest()[:12]


def _forward(model: Detector, image: Tensor, _config: EvalConfig) -> Any:
    return model(image)


def _instances(model: Detector, image: Tensor, config: EvalConfig) -> Any:
    size_hw = (image.shape[2], image.shape[3])
    return model.head.instances(
        model(image), size_hw, confidence=config.confidence, max_detections=config.max_detections
    )


def _segment(model: Detector, image: Tensor, _config: EvalConfig) -> Any:
    return model.head.segment(model(image), (image.shape[2], image.shape[3]))


_PREDICT: Mapping[Task, Callable[[Detector, Tensor, EvalConfig], Any]] = {
    "detect": _forward,
    "instance": _instances,
    "semantic": _segment,
    "classify": _forward,
    "multi": _forward,
}


def measure_latency(
    variations: Mapping[str, Variation], costs: Mapping[str, Cost], baseline: str, device: str
) -> tuple[dict[str, Cost], dict[str, Any]]:
    """Time one prediction of each form in every round, so that a busy moment meets all of them.

    The order is drawn anew in each round: in a fixed one the same form can meet the same interruption every time.

    Args:
        variations: by name.
        costs: their counts.
        baseline: the other end of the ratios.
        device: where to measure.

    Returns:
        The costs with latency, and a description of the measurement.
    """
    target = resolve_device(device)
    if target.type == "cpu":
        torch.set_num_threads(usable_cpus())
    forms: dict[str, tuple[Detector, Tensor, EvalConfig]] = {}
    for name, variation in variations.items():
        cost = costs[name]
        if cost.form not in forms:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = prepare_model(build_detector(variation.spec), target)
                image = torch.rand(1, 3, cost.image_size, cost.image_size, device=target)
            forms[cost.form] = (model, image.to(memory_format=torch.channels_last), variation.config.evaluation)
    times: dict[str, list[float]] = {form: [] for form in forms}
    started = time.perf_counter()
    generator, done = np.random.default_rng(0), 0
    while done < ROUNDS and (done < _LEAST_ROUNDS or time.perf_counter() - started < _SECONDS):
        for form in generator.permutation(list(forms)).tolist():
            for _ in range(1 if done else 3):  # warm-up
                seconds = _time(*forms[form], target)
            times[form].append(seconds)
        done += 1
    fastest = {form: 1000 * min(seconds) for form, seconds in times.items()}
    reference = fastest[costs[baseline].form]
    measured = {
        name: replace(cost, latency_ms=round(fastest[cost.form], 4), relative=round(fastest[cost.form] / reference, 4))
        for name, cost in costs.items()
    }
    threads = torch.get_num_threads() if target.type == "cpu" else None
    unrest = max(statistics.median(seconds) / min(seconds) for seconds in times.values())
    return measured, {"device": target.type, "threads": threads, "rounds": done, "unrest": round(unrest, 2)}


def _time(model: Detector, image: Tensor, config: EvalConfig, device: torch.device) -> float:
    with torch.inference_mode():
        synchronize(device)
        started = time.perf_counter()
        _PREDICT[model.spec.task](model, image, config)
        synchronize(device)
        return time.perf_counter() - started
