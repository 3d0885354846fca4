"""How much memory does training RevCol take with the number of columns, and how much time?

Saved: distinct storages held for the backward pass when the forward pass ends, each once, without parameters and the
input. Peak: highest running sum of the allocations of one forward and backward pass, gradients of parameters allocated
before. Time: median over rounds in turn. All in one run, for every way of keeping activations.

    python benchmarks/revcol_memory.py --columns 2 4 8 16 --threads 2 --output revcol_memory.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from timing import chosen_clock, environment, in_turn, median_ms, median_ratio, write_report
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from cloverleaf.backbones.revcol.backbone import RevColSpec

MODES = ("plain", "reversible", "anchored")
PUBLISHED = {2: (1.95, 20.74), 4: (2.89, 21.97), 8: (4.76, 23.92), 16: (8.51, 27.83)}  # reversible: saved, peak; MiB


def step(model: torch.nn.Module, images: Tensor) -> None:
    torch.stack([c.square().mean() for c in model(images)]).sum().backward()


def saved_mib(model: torch.nn.Module, images: Tensor) -> float:
    known = {value.untyped_storage().data_ptr() for value in [*model.parameters(), images]}
    found: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        maps = model(images)
        total = sum(found.values()) / 2**20
    del maps
    return total


def peak_mib(model: torch.nn.Module, images: Tensor) -> float:
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step(model, images)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    running = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        running += event.nbytes()
        peak = max(peak, running)
    return peak / 2**20


def measure(columns: int, options: argparse.Namespace) -> dict[str, Any]:
    images = torch.rand(options.batch_size, 3, options.image_size, options.image_size)
    models = {}
    for mode in MODES:
        torch.manual_seed(0)
        spec = RevColSpec(channels=tuple(options.channels), layers=tuple(options.layers), columns=columns, memory=mode)
        models[mode] = spec.build().train()
    memory = {mode: {"saved_mib": saved_mib(m, images), "peak_mib": peak_mib(m, images)} for mode, m in models.items()}
    actions = {mode: (lambda m=model: step(m, images)) for mode, model in models.items()}
    times = in_turn(actions, repeats=options.repeats, clock=chosen_clock(options.processor_time))
    ratios = {f"{mode}_over_plain": median_ratio(times[mode], times["plain"]) for mode in MODES[1:]}
    facts = {"columns": columns, "anchors_every": models["anchored"].anchor_distance()}
    return {**facts, **memory, **median_ms(times), **ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--channels", type=int, nargs=4, default=[32, 64, 128, 256])
    parser.add_argument("--layers", type=int, nargs=4, default=[2, 2, 4, 2])
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0, help="0 for torch's own choice")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine, with one thread")
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    results = []
    for columns in options.columns:
        result = measure(columns, options)
        results.append(result)
        published = PUBLISHED.get(columns)
        for mode in MODES:
            of = result[mode]
            line = f"{columns:2} columns, {mode:10} saved {of['saved_mib']:7.2f} MiB, peak {of['peak_mib']:7.2f} MiB"
            line += f", {result[f'{mode}_ms']:8.1f} ms"
            if mode != "plain":
                line += f", {result[f'{mode}_over_plain']:.2f}x plain"
                if published:
                    line += f"; of the published reversible: saved {of['saved_mib'] / published[0]:.2f}, "
                    line += f"peak {of['peak_mib'] / published[1]:.2f}"
            print(line, flush=True)
    write_report(options, environment(), results=results)


if __name__ == "__main__":
    main()
