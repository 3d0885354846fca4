"""What share of a training step do the assigner and the loss take?

Times, in one process and alternating, a full training step (forward, criterion, backward, optimiser) and the criterion
alone (assigner, loss and its gradient by the raw outputs), and prints their ratio.

    python benchmarks/loss_share.py --output loss_share.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from timing import environment, write_report

from cloverleaf import create_model
from cloverleaf.losses.config import LossConfig
from cloverleaf.models.criterion import build_criterion
from cloverleaf.structures import AnchorOutput, Targets


def realistic_targets(batch: int, size: int, mean_objects: float, num_classes: int, seed: int = 0) -> Targets:
    """Poisson counts around `mean_objects`, sides log-uniform from 6 px to 60 % of the image."""
    rng = torch.Generator().manual_seed(seed)
    counts = torch.poisson(torch.full((batch,), mean_objects), generator=rng).long()
    number = int(counts.sum())
    half = 3 * (0.1 * size) ** torch.rand(number, 2, generator=rng)
    centre = half + torch.rand(number, 2, generator=rng) * (size - 2 * half)
    labels = torch.randint(num_classes, (number,), generator=rng)
    image = torch.arange(batch).repeat_interleave(counts)
    return Targets(torch.cat((centre - half, centre + half), 1), labels, image, batch)


def seconds(action: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(options: argparse.Namespace) -> dict[str, float]:
    device = torch.device(options.device)
    size_hw = (options.image_size, options.image_size)
    torch.manual_seed(0)
    model = create_model(options.model, num_classes=options.classes).to(device, memory_format=torch.channels_last)
    criterion = build_criterion(model, LossConfig(assigner=options.assigner), image_size=options.image_size)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.937, nesterov=True)
    images = torch.rand(options.batch_size, 3, *size_hw, device=device).to(memory_format=torch.channels_last)
    targets = realistic_targets(options.batch_size, options.image_size, options.objects, options.classes).to(device)
    model.train()

    def forward() -> AnchorOutput:
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bf16):
            return model(images)

    def step() -> None:
        criterion(forward(), targets, size_hw).total.backward()
        optimizer.step()
        optimizer.zero_grad()

    def loss_only(raw: AnchorOutput) -> None:
        criterion(raw, targets, size_hw).total.backward()

    steps, losses = [], []
    for repeat in range(options.warmup + options.repeats):
        step_seconds = seconds(step, device)
        with torch.no_grad():
            raw = forward()
        leaves = AnchorOutput(tuple(level.detach().requires_grad_() for level in raw.levels))
        loss_seconds = seconds(lambda leaves=leaves: loss_only(leaves), device)
        if repeat >= options.warmup:
            steps.append(step_seconds)
            losses.append(loss_seconds)
    step_median, loss_median = statistics.median(steps), statistics.median(losses)
    return {
        "step_ms": step_median * 1e3,
        "criterion_ms": loss_median * 1e3,
        "share": loss_median / step_median,
        "objects": len(targets),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolov7-tiny")
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--objects", type=float, default=14.0, help="mean number per image")
    parser.add_argument("--assigner", choices=("simota", "anchor_ratio"), default="simota")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast in the model")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    options = parser.parse_args()
    result = measure(options)
    print(
        f"step {result['step_ms']:.1f} ms, assigner and loss {result['criterion_ms']:.1f} ms, "
        f"share {result['share']:.1%} ({result['objects']} objects in {options.batch_size} images)"
    )
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device
    write_report(options, environment(device=device), result=result)


if __name__ == "__main__":
    main()
