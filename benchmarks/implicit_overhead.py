"""What does implicit knowledge cost: in training, and once it is folded?

Training: for every model of the catalog that can carry it, its parameters and operations against the model's, with and
without. Models that are published with it have it where they are published; of others the head gets it (anchor heads
the released pair, the rest as `PLACED` says). Operations are 2 x multiply-accumulates of convolutions, and one for each
value that is added or multiplied, which counters leave out.

Folded: the same model with and without, both fused: nodes of the ONNX graph, and times in turn, in one process, in
eager PyTorch (channels-last) and ONNX Runtime. A second copy of the model without says how ratios of equals vary.

    python benchmarks/implicit_overhead.py
    python benchmarks/implicit_overhead.py --only folded yolov7-tiny --repeats 40
    OMP_NUM_THREADS=1 python benchmarks/implicit_overhead.py --processor-time   # where others use the machine, too
"""

from __future__ import annotations

import argparse
import copy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timing import chosen_clock, environment, in_turn, median_ms, median_ratio, write_report
from torch.utils.flop_counter import FlopCounterMode

from cloverleaf import list_models
from cloverleaf.deploy.onnx_file import open_session
from cloverleaf.deploy.onnx_graph import INPUT, deployable, trace
from cloverleaf.deploy.verify import sample_images
from cloverleaf.layers.implicit import Implicit
from cloverleaf.models.catalog import MODELS, build_detector, empty_detector, find_spec
from cloverleaf.models.detector import Detector
from cloverleaf.models.spec import DetectorSpec

LIMIT = 1e-4  # of the model's parameters and operations, for models of published size
PLACED: Mapping[str, Any] = {  # what a head gets that is published without
    "anchor": True,
    "dense": {"align": "add", "refine": "multiply"},
    "classify": {"task": "add"},
    "multi": {"task": "add"},
}
# Timed: name, what its neck gets beside the head, side of the input.
FOLDED: tuple[tuple[str, Mapping[str, Any], int], ...] = (
    ("yolov7-tiny", {}, 160),
    ("yolor-ssss-s2d", {}, 160),
    ("yolor-csp", {}, 128),
    ("gold-yolo-n", {}, 160),
    ("elan-tiny+elan-pan+anchor", {"align": "add"}, 160),
    ("elan-tiny+c2f-pan+dense", {"align": {"operator": "add", "modelling": "network"}}, 160),
    ("revcol-nano", {}, 128),
)


@dataclass(frozen=True)
class Cost:
    """Of a model for one image: parameters, operations of convolutions, and of implicit knowledge beside them."""

    params: int
    flops: int
    own_flops: int


def variations(name: str, neck: Mapping[str, Any] | None = None) -> tuple[DetectorSpec, DetectorSpec] | None:
    """The model with implicit knowledge and without; None where it cannot carry any."""
    spec = find_spec(name)
    head: Any = spec.head
    if spec.head.type not in PLACED or not hasattr(head, "implicit"):
        return None
    given: dict[str, Any] = {} if head.implicit else {"head": {"implicit": PLACED[spec.head.type]}}
    if neck:
        given["neck"] = {"implicit": dict(neck)}
    taken: dict[str, Any] = {"head": {"implicit": False}}
    if getattr(spec.neck, "implicit", None):
        taken["neck"] = {"implicit": None}
    return spec.with_overrides(given), spec.with_overrides(taken)


def cost_of(spec: DetectorSpec, side: int) -> Cost:
    """Counted on a model without storage."""
    model = empty_detector(spec).to("meta")
    own: list[int] = []
    for module in model.modules():
        if isinstance(module, Implicit):
            module.register_forward_hook(lambda m, _x, y: own.append(operations(m, y)))
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(torch.empty(1, 3, side, side, device="meta"))
    return Cost(sum(p.numel() for p in model.parameters()), counter.get_total_flops(), sum(own))


def operations(module: Implicit, output: torch.Tensor) -> int:
    """One for each value that is added or multiplied; making the constant takes 2 for each product in it."""
    applied = 0 if module.operator in ("concatenate", "inner") else output.numel()
    inside = sum(p.numel() for p in module.parameters())
    return applied + (0 if module.modelling == "vector" else 2 * inside)


def in_training(name: str) -> dict[str, Any] | None:
    """Parameters and operations with and without."""
    pair = variations(name)
    if pair is None:
        return None
    side = MODELS[name].image_size
    having, lacking = (cost_of(spec, side) for spec in pair)
    params = having.params - lacking.params
    flops = having.flops - lacking.flops + having.own_flops
    return {
        "model": name, "published_with": bool(getattr(find_spec(name).head, "implicit", None)), "image_size": side,
        "params": lacking.params, "implicit_params": params, "params_share": params / lacking.params,
        "flops": lacking.flops, "implicit_flops": flops, "flops_share": flops / lacking.flops,
    }  # fmt: skip


def print_training(rows: list[dict[str, Any]]) -> None:
    print("| model | parameters | implicit | share | GFLOPs | implicit, MFLOPs | share | below 1e-4 |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        below = [row[f"{kind}_share"] < LIMIT for kind in ("params", "flops")]
        verdict = "yes" if all(below) else "no" if not any(below) else "parameters" if below[0] else "operations"
        name = row["model"] if row["published_with"] else f"{row['model']} *"
        print(
            f"| {name} | {row['params'] / 1e6:.2f} M | {row['implicit_params']:,} | {row['params_share']:.1e} "
            f"| {row['flops'] / 1e9:.2f} | {row['implicit_flops'] / 1e6:.3f} | {row['flops_share']:.1e} | {verdict} |"
        )


def folded(spec: DetectorSpec) -> tuple[Detector, Detector]:
    """The trained form and the fused one, with the statistics of two random images and no weights of zeros."""
    torch.manual_seed(0)
    model = build_detector(spec)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1 and not weight.any():  # as predictors of anchor-free heads start
                weight.normal_(0, 0.05)
        model(sample_images(2, (4 * model.max_stride, 4 * model.max_stride)))
    return model.eval(), model.fused()


def after_folding(name: str, neck: Mapping[str, Any], side: int, options: argparse.Namespace) -> dict[str, Any] | None:
    """Nodes, times and the largest difference that folding makes (of implicit knowledge alone, norms as they are)."""
    pair = variations(name, neck)
    if pair is None:
        return None
    images = sample_images(1, (side, side))
    pixels, last = images.numpy(), images.to(memory_format=torch.channels_last)
    trained, having = folded(pair[0])
    lacking = folded(pair[1])[1]
    outputs = ("probabilities",) if having.task == "classify" else ("boxes", "scores")
    protos = {kind: trace(model, outputs, image_size=side, batch_size=1)
              for kind, model in (("with", having), ("without", lacking))}  # fmt: skip
    graphs = {kind: Counter(node.op_type for node in proto.graph.node) for kind, proto in protos.items()}
    actions: dict[tuple[str, str], Callable[[], Any]] = {}
    for kind, model in (("with", having), ("without", lacking), ("copy", copy.deepcopy(lacking))):
        session = open_session(protos["with" if kind == "with" else "without"].SerializeToString())
        eager = deployable(model).to(memory_format=torch.channels_last)
        actions[kind, "eager"] = lambda m=eager: m(last)
        actions[kind, "onnxruntime"] = lambda s=session: s.run(None, {INPUT: pixels})
    with torch.inference_mode():
        difference = relative_difference(deployable(trained)(images), deployable(trained.deployed())(images))
        times = in_turn(actions, repeats=options.repeats, clock=chosen_clock(options.processor_time))
    ways = ("eager", "onnxruntime")
    return {
        "model": name, "image_size": side, "neck": dict(neck), "same_nodes": graphs["with"] == graphs["without"],
        "nodes_with": graphs["with"].total(), "nodes_without": graphs["without"].total(),
        "relative_difference": difference,
        "ratio": {way: median_ratio(times["with", way], times["without", way], 3) for way in ways},
        "ratio_of_equals": {way: median_ratio(times["copy", way], times["without", way], 3) for way in ways},
        **median_ms({f"{kind} {way}": taken for (kind, way), taken in times.items()}),
    }  # fmt: skip


def relative_difference(one: Any, other: Any) -> float:
    """Largest difference over the largest value, of all outputs."""
    pairs = zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def print_head() -> None:
    print(
        "| model | nodes with | without | eager, with / without | two without | ONNX Runtime | two without | change |"
    )
    print("|---|---|---|---|---|---|---|---|")


def print_folded(row: dict[str, Any]) -> None:
    numbers = " | ".join(f"{row[kind][way]:.3f}" for way in ("eager", "onnxruntime")
                         for kind in ("ratio", "ratio_of_equals"))  # fmt: skip
    where = f"{row['model']}{', neck too' if row['neck'] else ''}, {row['image_size']} px"
    nodes = f"{row['nodes_with']} | {row['nodes_without']}"
    print(f"| {where} | {nodes} | {numbers} | {row['relative_difference']:.0e} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="default: the whole catalog, and those of FOLDED")
    parser.add_argument("--only", choices=("training", "folded"), help="one of the two tables")
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--threads", type=int, default=0, help="0 for torch's own choice")
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine, with one thread")
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    torch.set_flush_denormal(True)
    before = environment()
    names = options.models or list_models()
    training, timed = [], []
    if options.only != "folded":
        costs = {name: in_training(name) for name in names if name in MODELS}
        training = sorted((row for row in costs.values() if row), key=lambda row: row["params"])
        print_training(training)
        print("* published without, asked for here")
        print("no place for it:", ", ".join(name for name, row in costs.items() if not row) or "none", flush=True)
    if options.only != "training":
        chosen = [one for one in FOLDED if not options.models or one[0] in options.models]
        print_head()
        for one in chosen:
            if row := after_folding(*one, options):
                timed.append(row)
                print_folded(row)
    write_report(options, before, training=training, folded=timed)


if __name__ == "__main__":
    main()
