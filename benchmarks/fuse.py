"""How much faster does a model run once it is folded?

Times, in one process and alternating, every model in its training form (as `create_model` gives it, in evaluation
mode), the same folded by `fuse` and, with --onnx, what `export` would write, in ONNX Runtime; eager PyTorch, one image,
decoding included. Prints the ratios.

    python benchmarks/fuse.py --output fuse.json
    python benchmarks/fuse.py yolov7-tiny yolov7 --onnx
    python benchmarks/fuse.py gold-yolo-n yolov7-tiny --onnx --together   # the models against each other, too
    OMP_NUM_THREADS=1 python benchmarks/fuse.py --all --cpu-time     # where others use the machine, too
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import Clock, chosen_clock, environment, in_turn, write_report

from cloverleaf import create_model, list_models
from cloverleaf.deploy.fuse import fuse
from cloverleaf.deploy.onnx_file import open_session
from cloverleaf.deploy.onnx_graph import INPUT, DecodedDetector, trace
from cloverleaf.deploy.verify import sample_images
from cloverleaf.models.catalog import MODELS
from cloverleaf.models.cost import measure

_LARGE = 80e6  # parameters in deploy form; --all times such models, too


def actions_of(name: str, size: int, *, onnx: bool) -> tuple[dict[str, Callable[[], Any]], int]:
    """What is timed of a model, by form, and its parameters when fused."""
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
    return actions, sum(value.numel() for value in fused.parameters())


def measure_models(names: list[str], size: int, repeats: int, clock: Clock, *, onnx: bool) -> list[dict[str, Any]]:
    """Every model in every form, all in one alternating series."""
    prepared = {name: actions_of(name, size, onnx=onnx) for name in names}
    together = {(name, form): action for name, (actions, _) in prepared.items() for form, action in actions.items()}
    with torch.inference_mode():
        boxes = {key: together[key]()[0] for key in together if key[1] != "onnxruntime"}
        times = in_turn(together, repeats=repeats, clock=clock)
    seconds = {key: statistics.median(taken) for key, taken in times.items()}
    results = []
    for name, (actions, parameters) in prepared.items():
        of_model = {form: seconds[name, form] for form in actions}
        ratios = {f"{form}_ratio": of_model["training"] / value for form, value in of_model.items()}
        ratios.pop("training_ratio")
        results.append(
            {
                "model": name,
                "parameters": parameters,
                **{f"{form}_ms": 1e3 * value for form, value in of_model.items()},
                **ratios,
                "largest_box_difference_px": float((boxes[name, "training"] - boxes[name, "fused"]).abs().max()),
            }
        )
    return results


def _randomise_statistics(model: torch.nn.Module) -> None:
    """A fresh BatchNorm is nearly the identity, and its signal fades with depth."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.2, 0.6)


def chosen_models(names: list[str], everything: bool) -> list[str]:
    if names:
        return names
    detectors = [name for name in list_models() if MODELS[name].spec.task == "detect"]
    cost = {name: measure(MODELS[name].spec.as_deployed(), (64, 64)).params for name in detectors}
    return [name for name in sorted(cost, key=lambda name: cost[name]) if everything or cost[name] < _LARGE]


def line_of(result: dict[str, Any]) -> str:
    line = f"{result['model']:18} training form {result['training_ms']:8.1f} ms, fused {result['fused_ms']:8.1f} ms: "
    line += f"{result['fused_ratio']:.2f}x"
    if "onnxruntime_ms" in result:
        line += f"; ONNX Runtime {result['onnxruntime_ms']:8.1f} ms: {result['onnxruntime_ratio']:.2f}x"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="default: those below 80 M parameters")
    parser.add_argument("--all", action="store_true", help="the largest models, too")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--onnx", action="store_true", help="ONNX Runtime, too; exporting takes seconds per model")
    parser.add_argument("--together", action="store_true", help="one series for all models, and their ratios")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    parser.add_argument("--cpu-time", action="store_true", help="CPU seconds instead of the wall clock's")
    options = parser.parse_args()
    clock = chosen_clock(options.cpu_time)
    torch.set_flush_denormal(True)
    before = environment()
    names = chosen_models(options.models, options.all)
    results = []
    for series in [names] if options.together else [[name] for name in names]:
        results += measure_models(series, options.image_size, options.repeats, clock, onnx=options.onnx)
        for result in results[-len(series) :]:
            print(line_of(result), flush=True)
    if options.together:
        for form in ("fused", *(["onnxruntime"] if options.onnx else [])):
            for other in results[1:]:
                ratio = other[f"{form}_ms"] / results[0][f"{form}_ms"]
                print(f"{form}: {other['model']} takes {ratio:.2f} times as long as {names[0]}")
    write_report(options, before, result=results)


if __name__ == "__main__":
    main()
