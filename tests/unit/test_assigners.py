"""Assigners: the batched form against a loop over images and objects, and what must not matter."""

import math

import pytest
import torch

from anchor_cases import ANCHORS, STRIDES, random_levels, random_targets, rows_of
from cloverleaf.assigners.anchor_ratio import AnchorRatioAssigner
from cloverleaf.assigners.pair_costs import smallest
from cloverleaf.assigners.simota import SimOtaAssigner
from cloverleaf.ops.iou import pairwise_iou
from cloverleaf.structures import Targets

COUNTS = [7, 0, 15, 1]
BOTH = pytest.mark.parametrize("assigner", [AnchorRatioAssigner(), SimOtaAssigner()], ids=["plain", "simota"])


def subset(targets, keep, image_index=None, num_images=None):
    return Targets(
        targets.boxes_xyxy[keep],
        targets.labels[keep],
        targets.image_index[keep] if image_index is None else image_index,
        targets.num_images if num_images is None else num_images,
    )


def looped_candidates(targets, levels, size_hw, reach):
    """Per level a list of (image, anchor, row, column, proposing target), by the words of the published search."""
    found = []
    for i, level in enumerate(levels):
        rows, columns = level.shape[2:4]
        steps = [(0, 0), (-1, 0), (0, -1), (1, 0), (0, 1)]
        on_level = []
        for dx, dy in steps:
            for a in range(3):
                for t, (x1, y1, x2, y2) in enumerate(targets.boxes_xyxy.tolist()):
                    ratios = [(x2 - x1) / ANCHORS[i, a, 0].item(), (y2 - y1) / ANCHORS[i, a, 1].item()]
                    if max(max(r, 1 / r) for r in ratios) >= 4:
                        continue
                    x, y = (x1 + x2) / 2 / STRIDES[i], (y1 + y2) / 2 / STRIDES[i]
                    position = {(-1, 0): x, (0, -1): y, (1, 0): columns - x, (0, 1): rows - y}.get((dx, dy))
                    if position is not None and not (position % 1 < reach and position > 1):
                        continue
                    column = min(max(math.trunc(x + dx * reach), 0), columns - 1)
                    row = min(max(math.trunc(y + dy * reach), 0), rows - 1)
                    on_level.append((int(targets.image_index[t]), a, row, column, t))
        found.append(on_level)
    return found


def looped_simota(targets, levels, candidates, top):
    """Sets of (level, image, anchor, row, column, target), one image and one object at a time, in float64."""
    result = set()
    for image in range(targets.num_images):
        members = (targets.image_index == image).nonzero()[:, 0].tolist()
        cells = [(i, *cell[:4]) for i, cells in enumerate(candidates) for cell in cells if cell[0] == image]
        if not members or not cells:
            continue
        raw = torch.stack([levels[i][b, a, r, c] for i, b, a, r, c in cells]).double()
        sigmoid = raw.sigmoid()
        stride = torch.tensor([[STRIDES[i]] for i, *_ in cells])
        centre = (2 * sigmoid[:, :2] - 0.5 + torch.tensor([[c, r] for _, _, _, r, c in cells])) * stride
        half = (2 * sigmoid[:, 2:4]) ** 2 * torch.stack([ANCHORS[i, a] for i, _, a, _, _ in cells]) / 2
        iou = pairwise_iou(targets.boxes_xyxy[members].double(), torch.cat((centre - half, centre + half), 1))
        q = (sigmoid[:, 5:] * sigmoid[:, 4:5]).sqrt()
        wanted = torch.nn.functional.one_hot(targets.labels[members], q.shape[1]).double()
        class_cost = torch.nn.functional.binary_cross_entropy(
            q.expand(len(members), -1, -1), wanted[:, None].expand(-1, len(cells), -1), reduction="none"
        ).sum(-1)
        cost = class_cost - 3 * (iou + 1e-8).log()
        taken = {}
        for g in range(len(members)):
            k = max(int(iou[g].topk(min(top, len(cells))).values.sum()), 1)
            for n in cost[g].sort(stable=True).indices[:k].tolist():
                taken.setdefault(n, []).append(g)
        for n, takers in taken.items():
            winner = takers[0] if len(takers) == 1 else int(cost[:, n].argmin())
            result.add((*cells[n], members[winner]))
    return result


@pytest.mark.parametrize("size_hw", [(128, 128), (96, 160)])
@pytest.mark.parametrize(("reach", "top"), [(0.5, 10), (1.0, 20)])
def test_equal_to_loops(size_hw, reach, top):
    levels, targets = random_levels(4, size_hw, 5, seed=1), random_targets(COUNTS, size_hw, 5, seed=1)
    candidates = looped_candidates(targets, levels, size_hw, reach)
    plain = AnchorRatioAssigner(reach=reach)(levels, targets, ANCHORS, STRIDES, size_hw)
    assert rows_of(plain) == [(i, *cell) for i, cells in enumerate(candidates) for cell in cells]
    matches = SimOtaAssigner(reach=reach, top_candidates=top)(levels, targets, ANCHORS, STRIDES, size_hw)
    assert set(rows_of(matches)) == looped_simota(targets, levels, candidates, top)
    assert 4 < len(matches) < len(plain)


@BOTH
def test_images_do_not_influence_each_other(assigner):
    size_hw = (128, 128)
    levels, targets = random_levels(4, size_hw, 5), random_targets(COUNTS, size_hw, 5)
    together = rows_of(assigner(levels, targets, ANCHORS, STRIDES, size_hw))
    apart = []
    for image in range(4):
        keep = (targets.image_index == image).nonzero()[:, 0]
        alone = subset(targets, keep, torch.zeros(len(keep), dtype=torch.long), 1)
        one = [level[image : image + 1] for level in levels]
        for level, _, *cell, target in rows_of(assigner(one, alone, ANCHORS, STRIDES, size_hw)):
            apart.append((level, image, *cell, int(keep[target])))
    assert sorted(together) == sorted(apart)
    assert [row[0] for row in together] == sorted(row[0] for row in together)


@BOTH
def test_order_of_objects_does_not_matter(assigner):
    size_hw = (128, 128)
    levels, targets = random_levels(4, size_hw, 5), random_targets(COUNTS, size_hw, 5)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    order = order[targets.image_index[order].argsort(stable=True)]
    shuffled = rows_of(assigner(levels, subset(targets, order), ANCHORS, STRIDES, size_hw))
    renamed = [(*row[:5], int(order[row[5]])) for row in shuffled]
    assert sorted(renamed) == sorted(rows_of(assigner(levels, targets, ANCHORS, STRIDES, size_hw)))


@BOTH
@pytest.mark.parametrize("counts", [[0, 0], [0, 3]])
def test_empty_images(assigner, counts):
    targets = random_targets(counts, (64, 64), 5)
    matches = assigner(random_levels(2, (64, 64), 5), targets, ANCHORS, STRIDES, (64, 64))
    assert set(matches.image_index.tolist()) <= {1}
    assert (len(matches) > 0) == (sum(counts) > 0)


@pytest.mark.parametrize("logit", [200.0, -200.0, math.nan, math.inf, -math.inf])
def test_simota_survives_extreme_logits(logit):
    targets = random_targets([5, 3], (64, 64), 5)
    levels = [torch.full_like(level, logit) for level in random_levels(2, (64, 64), 5)]
    matches = SimOtaAssigner()(levels, targets, ANCHORS, STRIDES, (64, 64))
    rows = rows_of(matches)
    assert len(rows) >= 2
    assert all(row[1] == targets.image_index[row[5]] for row in rows)


@pytest.mark.parametrize("max_pairs", [1, 300, 5000])
def test_chunks_change_nothing(max_pairs):
    """One object at a time or several images together; objects that lost every cell prove that there are disputes."""
    size_hw = (128, 160)
    levels, targets = random_levels(4, size_hw, 3), random_targets([60, 0, 2, 35], size_hw, 3)
    twice = torch.arange(len(targets)).repeat_interleave(2)  # every object twice: ties between objects and candidates
    for objects in (targets, subset(targets, twice)):
        whole, chunked = (
            rows_of(SimOtaAssigner(reach=1.0, max_pairs=pairs)(levels, objects, ANCHORS, STRIDES, size_hw))
            for pairs in (2**30, max_pairs)
        )
        assert chunked == whole
        assert len({row[5] for row in whole}) < len(objects)


def test_memory_does_not_grow_with_pairs_beyond_the_bound():
    """600 objects and their 4000 candidates: 2.4 million pairs; with 20 classes 48 million numbers."""
    size_hw, classes = (320, 320), 20
    levels, targets = random_levels(1, size_hw, classes), random_targets([600], size_hw, classes)
    candidates = AnchorRatioAssigner()(levels, targets, ANCHORS, STRIDES, size_hw)
    assert len(targets) * len(candidates) > 2e6
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        matches = SimOtaAssigner(max_pairs=2**16)(levels, targets, ANCHORS, STRIDES, size_hw)
    assert len(matches) > 50
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest <= 8 * len(candidates) * (5 + classes)


def test_ties_go_to_the_first_column():
    cost = torch.randn(50, 200, generator=torch.Generator().manual_seed(0)).round(decimals=1)
    cost[7], cost[8, 3:] = 1.0, math.inf
    k = torch.randint(1, 21, (50,), generator=torch.Generator().manual_seed(1))
    row, column = smallest(cost, k, 20)
    expected = [sorted(cost[i].sort(stable=True).indices[: k[i]].tolist()) for i in range(50)]
    assert [sorted(column[row == i].tolist()) for i in range(50)] == expected
