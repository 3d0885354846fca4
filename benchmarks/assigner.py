"""How fast is SimOTA with its loss against a plain implementation that takes one image after the other?

The plain one, below, follows the published description step by step, as a reader would write it down: a loop over the
images, the class costs of an image as (objects, candidates, classes), a loop over its objects. The lean one differs in
the class cost only, which it has as one sum per candidate and a correction by the object's class, like ours; so its
ratio is what doing without the loops brings. All get the same predictions and objects; first it is checked that they
choose the same matches and compute the same loss, then they are timed in turn, so that ratios come from one run. The
peak of the memory that each allocates beyond its inputs is counted too.

    python benchmarks/assigner.py --threads 2 --output assigner.json
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from timing import chosen_clock, environment, in_turn, median_ms, median_ratio, write_report
from torch import Tensor

from cloverleaf.assigners.simota import SimOtaAssigner
from cloverleaf.heads.anchor_based import TINY_ANCHORS
from cloverleaf.losses.config import LossConfig
from cloverleaf.losses.criteria import AnchorCriterion
from cloverleaf.ops.iou import aligned_iou, pairwise_iou
from cloverleaf.structures import AnchorOutput, Targets

Contender = tuple[Callable[[], object], Callable[[], Tensor]]  # assignment alone; assignment and loss


class Plain:
    """The published assignment and loss, one image after the other.

    Args:
        criterion: whose gains, anchors and options are used.
        stable: of equal costs take the first ones; otherwise whatever `torch.topk` gives, which is quicker.
        lean: do without a tensor over objects, candidates and classes.
    """

    def __init__(self, criterion: AnchorCriterion, *, stable: bool = False, lean: bool = False) -> None:
        self.criterion, self.stable, self.lean = criterion, stable, lean
        self.anchors, self.strides = criterion.anchors_px, criterion.strides

    def candidates(self, level: int, shape: torch.Size, targets: Targets) -> tuple[Tensor, Tensor]:
        """(image, anchor, row, column) of the cells that may learn on a level ``(n, 4)``, and whose centre is near."""
        stride, (rows, columns) = self.strides[level], shape[2:4]
        corners = targets.boxes_xyxy / stride
        centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        found = []
        for shift_x, shift_y in ((0.0, 0.0), (-0.5, 0.0), (0.0, -0.5), (0.5, 0.0), (0.0, 0.5)):
            for anchor in range(self.anchors.shape[1]):
                ratio = size / (self.anchors[level, anchor] / stride)
                keep = torch.max(ratio, 1 / ratio).amax(1) < self.criterion.config.anchor_t
                if shift_x or shift_y:
                    place, end = (centre[:, 0], columns) if shift_x else (centre[:, 1], rows)
                    place = end - place if shift_x + shift_y > 0 else place
                    keep = keep & (place % 1 < 0.5) & (place > 1)
                index = keep.nonzero()[:, 0]
                cell = (centre[index] + torch.tensor([shift_x, shift_y])).long()
                column, row = cell[:, 0].clamp(0, columns - 1), cell[:, 1].clamp(0, rows - 1)
                found.append(torch.stack((targets.image_index[index], torch.full_like(row, anchor), row, column), 1))
        return torch.cat(found)

    def assign(self, levels: list[Tensor], targets: Targets) -> list[Tensor]:
        """Matches per level: ``(n, 5)`` of (image, anchor, row, column, target)."""
        everything = [self.candidates(i, level.shape, targets) for i, level in enumerate(levels)]
        matches: list[list[Tensor]] = [[] for _ in levels]
        for image in range(targets.num_images):
            mine = (targets.image_index == image).nonzero()[:, 0]
            cells = [found[found[:, 0] == image] for found in everything]
            if not len(mine) or not sum(map(len, cells)):
                continue
            for i, matched in enumerate(self.assign_image(levels, cells, mine, targets)):
                matches[i].append(matched)
        return [torch.cat(matched) if matched else torch.zeros(0, 5, dtype=torch.long) for matched in matches]

    @torch.no_grad()
    def assign_image(self, levels: list[Tensor], cells: list[Tensor], mine: Tensor, targets: Targets) -> list[Tensor]:
        predictions, boxes = [], []
        for i, (level, cell) in enumerate(zip(levels, cells, strict=True)):
            raw = level[cell[:, 0], cell[:, 1], cell[:, 2], cell[:, 3]]
            sigmoid = raw.sigmoid()
            centre = (2 * sigmoid[:, :2] - 0.5 + cell[:, [3, 2]]) * self.strides[i]
            size = (2 * sigmoid[:, 2:4]) ** 2 * self.anchors[i][cell[:, 1]]
            predictions.append(raw)
            boxes.append(torch.cat((centre - size / 2, centre + size / 2), 1))
        raw, box = torch.cat(predictions), torch.cat(boxes)
        iou = pairwise_iou(targets.boxes_xyxy[mine], box)  # (G, N)
        q = (raw[:, 5:].sigmoid() * raw[:, 4:5].sigmoid()).sqrt()  # (N, K)
        cost = self.class_cost(q, targets.labels[mine]) + 3 * -torch.log(iou + 1e-8)

        k = iou.topk(min(10, iou.shape[1]), dim=1).values.sum(1).int().clamp(min=1)
        matching = torch.zeros_like(cost)
        for g in range(len(mine)):
            order = cost[g].sort(stable=True) if self.stable else cost[g].topk(int(k[g]), largest=False)
            matching[g, order.indices[: int(k[g])]] = 1
        several = matching.sum(0) > 1
        if several.any():
            cheapest = cost[:, several].argmin(0)
            matching[:, several] = 0
            matching[cheapest, several] = 1
        taken = matching.sum(0) > 0
        target = mine[matching[:, taken].argmax(0)]
        rows, level = torch.cat((torch.cat(cells)[taken], target[:, None]), 1), torch.arange(len(cells))
        level = level.repeat_interleave(torch.tensor([len(cell) for cell in cells]))[taken]
        return [rows[level == i] for i in range(len(cells))]

    def class_cost(self, q: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of ``(N, K)`` probabilities with each of ``(G,)`` labels: ``(G, N)``."""
        if self.lean:
            logits = torch.log(q / (1 - q))
            none_right = F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="none").sum(-1)
            return none_right - logits[:, labels].T
        q = q.unsqueeze(0).repeat(len(labels), 1, 1)
        wanted = F.one_hot(labels, q.shape[-1]).float().unsqueeze(1).repeat(1, q.shape[1], 1)
        logits = torch.log(q / (1 - q))
        return F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(-1)

    def loss(self, levels: list[Tensor], targets: Targets, matches: list[Tensor]) -> Tensor:
        """The published loss of given matches, one level after the other."""
        of = self.criterion
        box, obj, cls = torch.zeros(3)
        for i, (level, match) in enumerate(zip(levels, matches, strict=True)):
            image, anchor, row, column, target = match.unbind(1)
            objectness = torch.zeros(level.shape[:4])
            if len(match):
                raw = level[image, anchor, row, column]
                centre = 2 * raw[:, :2].sigmoid() - 0.5
                size = (2 * raw[:, 2:4].sigmoid()) ** 2 * (self.anchors[i] / self.strides[i])[anchor]
                wanted = targets.boxes_xyxy[target] / self.strides[i] - torch.stack((column, row), 1).repeat(1, 2)
                iou = aligned_iou(torch.cat((centre - size / 2, centre + size / 2), 1), wanted, "ciou")
                box = box + (1 - iou).mean()
                objectness[image, anchor, row, column] = iou.detach().clamp(min=0)
                one_hot = F.one_hot(targets.labels[target], raw.shape[1] - 5).float()
                cls = cls + F.binary_cross_entropy_with_logits(raw[:, 5:], one_hot)
            obj = obj + F.binary_cross_entropy_with_logits(level[..., 4], objectness) * of.balance[i]
        return (box * of.box_gain + obj * of.obj_gain + cls * of.cls_gain) * levels[0].shape[0]

    def total(self, levels: list[Tensor], targets: Targets) -> Tensor:
        """Assignment and loss."""
        return self.loss(levels, targets, self.assign(levels, targets))


def make_targets(options: argparse.Namespace, objects: int) -> Targets:
    """`objects` in every image, sides log-uniform from 6 px to 60 % of the image."""
    rng = torch.Generator().manual_seed(objects)
    number, size = objects * options.batch_size, options.image_size
    half = 3 * (0.1 * size) ** torch.rand(number, 2, generator=rng)
    centre = half + torch.rand(number, 2, generator=rng) * (size - 2 * half)
    labels = torch.randint(options.classes, (number,), generator=rng)
    image = torch.arange(options.batch_size).repeat_interleave(objects)
    return Targets(torch.cat((centre - half, centre + half), 1), labels, image, options.batch_size)


def make_levels(options: argparse.Namespace, strides: tuple[int, ...]) -> list[Tensor]:
    """Raw outputs of a head early in training: boxes near their anchors, low scores."""
    rng = torch.Generator().manual_seed(0)
    levels = []
    for stride in strides:
        side = options.image_size // stride
        level = torch.randn(options.batch_size, 3, side, side, 5 + options.classes, generator=rng)
        level[..., :4] *= 0.3
        level[..., 4:] -= 2
        levels.append(level.requires_grad_())
    return levels


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


def measure(options: argparse.Namespace, objects: int) -> dict[str, Any]:
    strides = (8, 16, 32)
    criterion = AnchorCriterion(
        LossConfig(cls=0.3, obj=0.7), anchors_px=torch.tensor(TINY_ANCHORS), strides=strides,
        num_classes=options.classes, image_size=options.image_size, assigner=SimOtaAssigner(),
    )  # fmt: skip
    size_hw = (options.image_size, options.image_size)
    levels, targets = make_levels(options, strides), make_targets(options, objects)
    raw, where = AnchorOutput(tuple(levels)), (targets, criterion.anchors_px, strides, size_hw)
    plain, lean = Plain(criterion), Plain(criterion, lean=True)
    contenders: dict[str, Contender] = {
        "ours": (lambda: criterion.assigner(levels, *where), lambda: criterion(raw, targets, size_hw).total),
        "plain": (lambda: plain.assign(levels, targets), lambda: plain.total(levels, targets)),
        "lean": (lambda: lean.assign(levels, targets), lambda: lean.total(levels, targets)),
    }
    stages: dict[str, Callable[[Contender], object]] = {
        "assignment": lambda contender: contender[0](),
        "assignment_and_loss": lambda contender: contender[1](),
        "with_gradient": lambda contender: contender[1]().backward(),
    }
    timed = {
        stage: time_in_turn({name: partial(run, of) for name, of in contenders.items()}, levels, options)
        for stage, run in stages.items()
    }
    return {
        "objects_per_image": objects, **compare(criterion, raw, targets, size_hw), **timed,
        "peak_mib": {name: round(peak_mib(contender[1]), 1) for name, contender in contenders.items()},
    }  # fmt: skip


def compare(
    criterion: AnchorCriterion, raw: AnchorOutput, targets: Targets, size_hw: tuple[int, int]
) -> dict[str, float]:
    """Matches and loss of ours against the plain one, with one rule for equal costs."""
    levels = list(raw.levels)
    found = criterion.assigner(levels, targets, criterion.anchors_px, criterion.strides, size_hw)
    names = ("level", "image_index", "anchor", "row", "column", "target_index")
    matches = set(zip(*(getattr(found, name).tolist() for name in names), strict=True))
    total = criterion(raw, targets, size_hw).total.detach()
    plain = Plain(criterion, stable=True)
    expected = plain.assign(levels, targets)
    loss = plain.loss(levels, targets, expected).detach()
    return {
        "matches": len(matches),
        "matches_that_differ": len(matches ^ {(i, *row) for i, rows in enumerate(expected) for row in rows.tolist()}),
        "loss_relative_difference": abs(float(total / loss) - 1),
    }


def time_in_turn(
    actions: dict[str, Callable[[], object]], levels: list[Tensor], options: argparse.Namespace
) -> dict[str, float]:
    """Median milliseconds of each action, and of the ratios of the others to ours, round by round."""

    def forget() -> None:
        for level in levels:
            level.grad = None

    times = in_turn(actions, repeats=options.repeats, clock=chosen_clock(options.processor_time), before=forget)
    ratios = {f"{name}_over_ours": median_ratio(times[name], times["ours"]) for name in ("plain", "lean")}
    return {**median_ms(times), **ratios}


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
    results = [measure(options, objects) for objects in options.objects]
    for result in results:
        print(
            f"{result['objects_per_image']} objects an image: {result['matches']} matches, of which "
            f"{result['matches_that_differ']} differ; loss differs by {result['loss_relative_difference']:.1e}"
        )
        for stage in ("assignment", "assignment_and_loss", "with_gradient"):
            of = result[stage]
            print(f"  {stage:20} ours {of['ours_ms']:8.1f} ms", end="")
            print(
                "".join(f", {n} {of[f'{n}_ms']:8.1f} ms, ratio {of[f'{n}_over_ours']:5.1f}" for n in ("plain", "lean"))
            )
        print(
            "  peak memory          " + ", ".join(f"{name} {mib:.0f} MiB" for name, mib in result["peak_mib"].items())
        )
    write_report(options, environment(), results=results)


if __name__ == "__main__":
    main()
