"""How fast are RevCol's detector-sized variants, beside other backbones of equal operations?

For every variant the widths of a CSP backbone (C2f blocks), an ELAN one and EfficientRep are chosen so that their
operations come nearest to its own, and where widths, which are multiples of 8, do not come near enough, the depths; all
give maps of strides 4 to 32, and all are folded. One image, in turn, in one process; eager PyTorch (channels-last) and
ONNX Runtime. Ratios are RevCol's time over the other's.

    python benchmarks/revcol_inference.py --output revcol_inference.json
    OMP_NUM_THREADS=1 python benchmarks/revcol_inference.py --processor-time   # where others use the machine, too
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from backbone_cost import Cost, actions_of, cost_of
from timing import chosen_clock, environment, in_turn, median_ms, median_ratio, write_report

from cloverleaf.backbones.csp_darknet import CspDarknetSpec
from cloverleaf.backbones.efficient_rep import EfficientRepSpec
from cloverleaf.backbones.elan import ElanTinySpec
from cloverleaf.backbones.revcol.variants import DETECTOR_SIZED, REAL_TIME

OTHERS: dict[str, tuple[Any, tuple[float, ...]]] = {  # with the depths that are tried, in this order
    "csp-darknet": (CspDarknetSpec(), (0.33, 0.5, 0.17)),
    "elan-tiny": (ElanTinySpec(activation="silu", finest=4), (2, 3, 1, 4)),
    "efficient-rep": (EfficientRepSpec(pool="sppf"), (0.33, 0.25, 0.5, 0.4, 0.17)),
}
VARIANTS = {**DETECTOR_SIZED, **REAL_TIME}
_STEPS = 64  # widths that are tried, per unit
_TOLERANCE = 0.05


def equal_width(spec: Any, wanted: Cost, size: int) -> tuple[Any, Cost]:
    """``spec`` at the width at which its operations come nearest to those ``wanted``."""
    low, high = 1, 8 * _STEPS
    while high - low > 1:  # operations grow with the width
        middle = (low + high) // 2
        low, high = (middle, high) if cost_of(at(spec, middle), size).flops <= wanted.flops else (low, middle)
    costs = {width: cost_of(at(spec, width), size) for width in (low, high)}
    best = min(costs, key=lambda width: abs(costs[width].flops - wanted.flops))
    return at(spec, best), costs[best]


def equal(spec: Any, depths: tuple[float, ...], wanted: Cost, size: int) -> tuple[Any, Cost]:
    """The first depth at which some width comes near enough, or the one that comes nearest."""
    tried = []
    for depth in depths:
        tried.append(equal_width(replace(spec, depth=depth), wanted, size))
        if abs(tried[-1][1].flops / wanted.flops - 1) <= _TOLERANCE:
            return tried[-1]
    return min(tried, key=lambda one: abs(one[1].flops - wanted.flops))


def at(spec: Any, width: int) -> Any:
    return replace(spec, width=width / _STEPS)


def measure(variant: str, options: argparse.Namespace) -> dict[str, Any]:
    spec, size = VARIANTS[variant], options.image_size
    own = cost_of(spec, size)
    chosen = {name: equal(other, depths, own, size) for name, (other, depths) in OTHERS.items()}
    specs = {variant: spec, **{name: found for name, (found, _) in chosen.items()}}
    actions = {(name, way): action for name, one in specs.items() for way, action in actions_of(one, size).items()}
    with torch.inference_mode():
        times = in_turn(actions, repeats=options.repeats, clock=chosen_clock(options.processor_time))
    print(f"{variant}: {own.text}", flush=True)
    rows = {}
    for name, (found, cost) in chosen.items():
        ratios = {way: median_ratio(times[variant, way], times[name, way]) for way in ("eager", "onnxruntime")}
        share = cost.flops / own.flops
        rows[name] = {
            "width": found.width,
            "depth": found.depth,
            "params": cost.params,
            "flops_ratio": round(share, 3),
            **ratios,
        }
        missed = "" if abs(share - 1) <= _TOLERANCE else f" (operations differ by {share - 1:+.1%})"
        text = f"eager {ratios['eager']:.2f}x, ONNX Runtime {ratios['onnxruntime']:.2f}x"
        print(
            f"  over {name:13} width {found.width:.3f}, depth {found.depth:g}, {cost.text}{missed}: {text}", flush=True
        )
    spent = median_ms({f"{name} {way}": taken for (name, way), taken in times.items()})
    return {"variant": variant, "params": own.params, "flops": own.flops, "over": rows, **spent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", default=list(VARIANTS), help="default: all")
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--threads", type=int, default=0, help="0 for torch's own choice")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine, with one thread")
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    before = environment()
    write_report(options, before, results=[measure(variant, options) for variant in options.variants])


if __name__ == "__main__":
    main()
