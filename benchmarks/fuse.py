"""How much faster does a model run once it is folded?

Times, in one process and alternating, every model in its training form (as `create_model` gives it, in evaluation
mode), the same folded by `fuse` and, with --onnx, what `export` would write, in ONNX Runtime; eager PyTorch, one image,
decoding included. Prints the ratios.

    python benchmarks/fuse.py --output fuse.json
    python benchmarks/fuse.py yolov7-tiny yolov7 --onnx
    OMP_NUM_THREADS=1 python benchmarks/fuse.py --all --cpu-time     # where others use the machine, too
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cloverleaf import create_model, list_models
from cloverleaf.deploy.fuse import fuse
from cloverleaf.deploy.onnx_file import open_session
from cloverleaf.deploy.onnx_graph import INPUT, DecodedDetector, trace
from cloverleaf.deploy.verify import sample_images
from cloverleaf.models.catalog import MODELS
from cloverleaf.models.cost import measure

Clock = Callable[[], float]
_LARGE = 80e6  # parameters in deploy form; --all times such models, too


def measure_model(name: str, size: int, repeats: int, clock: Clock, *, onnx: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    training = create_model(name).eval()
    _randomise_statistics(training)
    fused = fuse(training)
    images = sample_images(1, (size, size))
    last = images.to(memory_format=torch.channels_last)
    eager = {form: DecodedDetector(model.to(memory_format=torch.channels_last))
             for form, model in (("training", training), ("fused", fused))}  # fmt: skip
    actions: dict[str, Callable[[], Any]] = {form: lambda m=model: m(last) for form, model in eager.items()}
    if onnx:
        plain = fuse(training).to(memory_format=torch.contiguous_format)
        proto = trace(plain, ("boxes", "scores"), image_size=size, batch_size=1)
        session = open_session(proto.SerializeToString())
        actions["onnxruntime"] = lambda: session.run(None, {INPUT: images.numpy()})
    with torch.inference_mode():
        (boxes, _), (fused_boxes, _) = (actions[form]() for form in ("training", "fused"))
        seconds = interleaved(actions, repeats, clock)
    milliseconds = {f"{form}_ms": 1e3 * value for form, value in seconds.items()}
    ratios = {f"{form}_ratio": seconds["training"] / value for form, value in seconds.items() if form != "training"}
    return {
        "model": name,
        "parameters": sum(value.numel() for value in fused.parameters()),
        **milliseconds,
        **ratios,
        "largest_box_difference_px": float((boxes - fused_boxes).abs().max()),
    }


def _randomise_statistics(model: torch.nn.Module) -> None:
    """A fresh BatchNorm is nearly the identity, and its signal fades with depth."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.2, 0.6)


def interleaved(actions: dict[str, Callable[[], Any]], repeats: int, clock: Clock) -> dict[str, float]:
    """Median seconds of each, one after another in every round; the first round warms up."""
    spent: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats + 1):
        for name, action in actions.items():
            start = clock()
            action()
            spent[name].append(clock() - start)
    return {name: statistics.median(values[1:]) for name, values in spent.items()}


def chosen_models(names: list[str], everything: bool) -> list[str]:
    if names:
        return names
    cost = {name: measure(MODELS[name].spec.as_deployed(), (64, 64)).params for name in list_models()}
    return [name for name in sorted(cost, key=lambda name: cost[name]) if everything or cost[name] < _LARGE]


def environment() -> dict[str, object]:
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="default: those below 80 M parameters")
    parser.add_argument("--all", action="store_true", help="the largest models, too")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--onnx", action="store_true", help="ONNX Runtime, too; exporting takes seconds per model")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds instead of the wall clock's")
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    torch.set_flush_denormal(True)
    before = environment()
    results = []
    for name in chosen_models(options.models, options.all):
        result = measure_model(name, options.image_size, options.repeats, clock, onnx=options.onnx)
        results.append(result)
        line = f"{name:18} training form {result['training_ms']:8.1f} ms, fused {result['fused_ms']:8.1f} ms: "
        line += f"{result['fused_ratio']:.2f}x"
        if options.onnx:
            line += f"; ONNX Runtime {result['onnxruntime_ms']:8.1f} ms: {result['onnxruntime_ratio']:.2f}x"
        print(line, flush=True)
    if options.output:
        settings = {
            "image_size": options.image_size,
            "repeats": options.repeats,
            "batch_size": 1,
            "clock": clock.__name__,
        }
        report = {"result": results, "settings": settings, "environment": before}
        options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
