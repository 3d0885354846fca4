"""Which shapes of RevCol fit a budget of parameters, what do they cost, and how fast are they?

Lists all combinations of blocks, layers, columns and proportions of the channels whose narrowest form within 15 % of
the budget exists, with their operations, sorted; and times the candidates that are named, in turn, in one process, one
image, folded, eager PyTorch and ONNX Runtime. How docs/decisions/revcol-sizes.md was made:

    python benchmarks/revcol_sizes.py --budget 1
    python benchmarks/revcol_sizes.py --time 16,32,64,128/1,1,2,1/4 24,48,96,192/1,1,2,1/2/rep --processor-time

A candidate is CHANNELS/LAYERS/COLUMNS[/BLOCK[/KERNEL]].
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import torch
from backbone_cost import Cost, actions_of, cost_of
from timing import chosen_clock, environment, in_turn, median_ms, median_ratio, write_report

from cloverleaf.backbones.revcol.backbone import RevColSpec

BLOCKS = ("convnext", "rep")
LAYERS = ((1, 1, 1, 1), (1, 1, 2, 1), (1, 1, 3, 2), (2, 2, 4, 2))
COLUMNS = (2, 3, 4, 6, 8)
PROPORTIONS = ((1, 2, 4, 8), (1, 2, 4, 6), (1, 2, 4, 4))
_TOLERANCE = 0.15


def params_of(spec: RevColSpec) -> int:
    return cost_of(spec, 32).params


def fitting(layers: Any, columns: int, proportions: Any, block: Any, budget: float) -> RevColSpec | None:
    """The multiple of 8 as first width that comes nearest to the budget, if it comes near enough."""
    specs = (
        RevColSpec(channels=tuple(first * p for p in proportions), layers=layers, columns=columns, block=block)
        for first in range(8, 129, 8)
    )
    found: dict[RevColSpec, int] = {}
    for spec in specs:
        found[spec] = params_of(spec)
        if found[spec] > budget:
            break
    best = min(found, key=lambda spec: abs(found[spec] - budget))
    return best if abs(found[best] / budget - 1) <= _TOLERANCE else None


def name_of(spec: RevColSpec) -> str:
    numbers = (",".join(map(str, spec.channels)), ",".join(map(str, spec.layers)), str(spec.columns))
    return "/".join((*numbers, spec.block, str(spec.kernel_size)))


def parse(text: str) -> RevColSpec:
    channels, layers, columns, *more = text.split("/")
    options: dict[str, Any] = dict(zip(("block", "kernel_size"), more, strict=False))
    if "kernel_size" in options:
        options["kernel_size"] = int(options["kernel_size"])
    widths, counts = (tuple(map(int, numbers.split(","))) for numbers in (channels, layers))
    return RevColSpec(channels=widths, layers=counts, columns=int(columns), **options)  # type: ignore[arg-type]


def row(spec: RevColSpec, cost: Cost) -> dict[str, Any]:
    return {"candidate": name_of(spec), "params": cost.params, "flops": cost.flops}


def listed(options: argparse.Namespace) -> list[dict[str, Any]]:
    combinations = product(LAYERS, COLUMNS, PROPORTIONS, BLOCKS)
    specs = [spec for one in combinations if (spec := fitting(*one, options.budget * 1e6)) is not None]
    rows = sorted((row(spec, cost_of(spec, options.image_size)) for spec in specs), key=lambda one: one["flops"])
    for one in rows:
        print(f"{one['candidate']:34} {Cost(one['params'], one['flops']).text}", flush=True)
    return rows


def timed(options: argparse.Namespace) -> list[dict[str, Any]]:
    specs = [parse(text) for text in options.time]
    actions = {
        (name_of(spec), way): action
        for spec in specs
        for way, action in actions_of(spec, options.image_size).items()
    }  # fmt: skip
    with torch.inference_mode():
        times = in_turn(actions, repeats=options.repeats, clock=chosen_clock(options.processor_time))
    rows = []
    for spec in specs:
        ways = {way: times[name_of(spec), way] for way in ("eager", "onnxruntime")}
        ratios = {f"{way}_ratio": median_ratio(ways[way], times[name_of(specs[0]), way]) for way in ways}
        rows.append({**row(spec, cost_of(spec, options.image_size)), **median_ms(ways), **ratios})
        one = rows[-1]
        text = ", ".join(f"{way} {one[f'{way}_ms']:7.1f} ms ({one[f'{way}_ratio']:.2f}x the first)" for way in ways)
        print(f"{one['candidate']:34} {Cost(one['params'], one['flops']).text}; {text}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, help="millions of parameters")
    parser.add_argument("--time", nargs="+", default=[], metavar="CANDIDATE", help="times are also given as ratios")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--threads", type=int, default=0, help="0 for torch's own choice")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine, with one thread")
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    options = parser.parse_args()
    if not options.budget and not options.time:
        parser.error("give --budget, --time or both")
    torch.set_num_threads(options.threads or torch.get_num_threads())
    before = environment()
    results: dict[str, Any] = {"fitting": listed(options)} if options.budget else {}
    write_report(options, before, **results, **({"timed": timed(options)} if options.time else {}))


if __name__ == "__main__":
    main()
