"""How fast are the assigners of anchor-free heads against a plain loop over the images?

The plain ones, below, follow the published descriptions step by step: one image after the other, every step on a table
of all its objects and positions, as the published implementation does with the images padded to one table. All get the
same predictions and objects; first it is checked that they choose the same positions and scores, then they are timed in
turn, so that ratios come from one run. The peak of the memory that each allocates beyond its inputs is counted too.

    python benchmarks/dense_assigner.py --threads 2 --output dense_assigner.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from timing import chosen_clock, environment, in_turn, median_ms, median_ratio, write_report
from torch import Tensor

from cloverleaf.assigners.atss import AtssAssigner
from cloverleaf.assigners.task_aligned import TaskAlignedAssigner
from cloverleaf.ops.iou import pairwise_iou
from cloverleaf.ops.points import cell_middles, level_sizes
from cloverleaf.structures import PointAssigner, PointAssignment, Targets

STRIDES = (8, 16, 32)


def inside(middles: Tensor, boxes: Tensor) -> Tensor:
    """``(N, 2)`` points in ``(G, 4)`` boxes: ``(G, N)``."""
    margins = torch.cat((middles - boxes[:, None, :2], boxes[:, None, 2:] - middles), -1)
    return margins.amin(-1) > 1e-9


def settle(mask: Tensor, overlap: Tensor) -> Tensor:
    """``(G, N)`` wishes so that no position is given twice."""
    several = mask.sum(0) > 1
    best = torch.zeros_like(mask).scatter_(0, overlap.argmax(0, keepdim=True), True)
    return torch.where(several, best, mask)


def plain_task_aligned(
    logits: Tensor, boxes: Tensor, labels: Tensor, wanted: Tensor, middles: Tensor, topk: int
) -> tuple[Tensor, Tensor]:
    """Positions of an image ``(G, N)`` bool and their scores ``(N,)``."""
    iou = pairwise_iou(wanted, boxes)
    metric = logits.sigmoid().T[labels] * iou.pow(6)
    can = inside(middles, wanted)
    best = (metric * can).topk(topk, dim=1).indices
    mask = settle(torch.zeros_like(can).scatter_(1, best, True) & can & (metric > 0), iou)
    metric, iou = metric * mask, iou * mask
    scaled = metric * iou.amax(1, keepdim=True) / (metric.amax(1, keepdim=True) + 1e-9)
    return mask, scaled.amax(0)


def plain_atss(
    logits: Tensor, boxes: Tensor, labels: Tensor, wanted: Tensor, middles: Tensor, anchors: Tensor, counts: list[int]
) -> tuple[Tensor, Tensor]:
    """As `plain_task_aligned`."""
    iou = pairwise_iou(wanted, anchors)
    distance = torch.cdist((wanted[:, :2] + wanted[:, 2:]) / 2, middles)
    near, start = [], 0
    for part in distance.split(counts, 1):
        near.append(part.topk(9, dim=1, largest=False).indices + start)
        start += part.shape[1]
    chosen = torch.cat(near, 1)
    candidates = iou.gather(1, chosen)
    limit = candidates.mean(1, keepdim=True) + candidates.std(1, keepdim=True)
    mask = torch.zeros_like(iou, dtype=torch.bool).scatter_(1, chosen, True) & (iou > limit) & inside(middles, wanted)
    mask = settle(mask, iou)
    return mask, (pairwise_iou(wanted, boxes) * mask).amax(0)


class Plain:
    """A `PointAssigner` that takes one image after the other."""

    def __init__(self, kind: str, size_hw: tuple[int, int]) -> None:
        points, stride = cell_middles(STRIDES, size_hw)
        self.kind, self.middles = kind, points * stride
        self.anchors = torch.cat((self.middles - 2.5 * stride, self.middles + 2.5 * stride), 1)
        self.counts = [height * width for height, width in level_sizes(STRIDES, size_hw)]

    @torch.no_grad()
    def __call__(
        self, logits: Tensor, boxes_xyxy: Tensor, targets: Targets, strides: object, size_hw: object
    ) -> PointAssignment:
        found = []
        for image in range(targets.num_images):
            mine = (targets.image_index == image).nonzero()[:, 0]
            if not len(mine):
                continue
            where = (logits[image], boxes_xyxy[image], targets.labels[mine], targets.boxes_xyxy[mine], self.middles)
            if self.kind == "atss":
                mask, score = plain_atss(*where, self.anchors, self.counts)
            else:
                mask, score = plain_task_aligned(*where, 13)
            position = mask.any(0).nonzero()[:, 0]
            target = mine[mask[:, position].int().argmax(0)]
            found.append((torch.full_like(position, image), position, target, score[position]))
        return PointAssignment(*(torch.cat(part) for part in zip(*found, strict=True)))


def make_targets(options: argparse.Namespace, objects: int) -> Targets:
    """`objects` in every image, sides log-uniform from 6 px to 60 % of the image."""
    rng = torch.Generator().manual_seed(objects)
    number, size = objects * options.batch_size, options.image_size
    half = 3 * (0.1 * size) ** torch.rand(number, 2, generator=rng)
    centre = half + torch.rand(number, 2, generator=rng) * (size - 2 * half)
    labels = torch.randint(options.classes, (number,), generator=rng)
    image = torch.arange(options.batch_size).repeat_interleave(objects)
    return Targets(torch.cat((centre - half, centre + half), 1), labels, image, options.batch_size)


def make_predictions(options: argparse.Namespace, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Scores and boxes of a head in training: sides of about two cells and more, low scores."""
    rng = torch.Generator().manual_seed(0)
    points, stride = cell_middles(STRIDES, size_hw)
    logits = torch.randn(options.batch_size, len(points), options.classes, generator=rng) - 2
    distances = torch.randn(options.batch_size, len(points), 4, generator=rng).mul(0.7).exp() * 2
    return logits, torch.cat((points - distances[..., :2], points + distances[..., 2:]), -1) * stride


def peak_mib(action: Callable[[], object]) -> float:
    """Most memory, in MiB, that tensors made by `action` take at one time."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        action()
    results: Any = profile.profiler
    now = peak = 0
    for event in sorted(results.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return peak / 2**20


def rows_of(found: PointAssignment) -> dict[tuple[int, ...], float]:
    """(image, position, target) -> score."""
    keys = torch.stack((found.image_index, found.position, found.target_index), 1).tolist()
    return dict(zip(map(tuple, keys), found.score.tolist(), strict=True))


def measure(options: argparse.Namespace, kind: str, objects: int) -> dict[str, Any]:
    size_hw = (options.image_size, options.image_size)
    targets, (logits, boxes) = make_targets(options, objects), make_predictions(options, size_hw)
    ours: PointAssigner = AtssAssigner() if kind == "atss" else TaskAlignedAssigner()
    assigners = {"ours": ours, "plain": Plain(kind, size_hw)}
    actions = {
        name: (lambda of=of: of(logits, boxes, targets, STRIDES, size_hw))  # type: ignore[misc]
        for name, of in assigners.items()
    }
    times = in_turn(actions, repeats=options.repeats, clock=chosen_clock(options.processor_time))
    found, expected = (action() for action in actions.values())
    rows = [rows_of(of) for of in (found, expected)]
    shared = rows[0].keys() & rows[1].keys()
    return {
        "assigner": kind, "objects_per_image": objects, "positions": len(found),
        "positions_that_differ": len(rows[0].keys() ^ rows[1].keys()),
        "largest_score_difference": max((abs(rows[0][key] - rows[1][key]) for key in shared), default=0.0),
        **median_ms(times), "plain_over_ours": median_ratio(times["plain"], times["ours"]),
        "peak_mib": {name: round(peak_mib(action), 1) for name, action in actions.items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--image-size", type=int, default=640)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--objects", type=int, nargs="+", default=[20, 200], help="per image")
    parser.add_argument("--threads", type=int, default=0, help="0 for torch's own choice")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine, with one thread")
    parser.add_argument("--output", type=Path, help="JSON file for the result")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    results = [measure(options, kind, objects) for kind in ("task-aligned", "atss") for objects in options.objects]
    for result in results:
        peaks = ", ".join(f"{name} {mib:.0f} MiB" for name, mib in result["peak_mib"].items())
        print(
            f"{result['assigner']:12} {result['objects_per_image']:4} objects an image:"
            f" {result['positions']} positions,"
            f" {result['positions_that_differ']} differ, scores by {result['largest_score_difference']:.1e};"
            f" ours {result['ours_ms']:.1f} ms, plain {result['plain_ms']:.1f} ms,"
            f" ratio {result['plain_over_ours']:.1f}; peak memory {peaks}"
        )
    write_report(options, environment(), results=results)


if __name__ == "__main__":
    main()
