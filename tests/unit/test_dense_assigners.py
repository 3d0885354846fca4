"""Assigners of anchor-free heads: the batched form against loops, and what must not matter."""

import math

import pytest
import torch

from anchor_cases import random_targets
from cloverleaf.assigners.atss import AtssAssigner
from cloverleaf.assigners.task_aligned import TaskAlignedAssigner
from dense_cases import dense_predictions, looped_atss, looped_task_aligned, repeated, rows_of_points

COUNTS = [9, 0, 25, 1]
BOTH = pytest.mark.parametrize("assigner", [TaskAlignedAssigner(), AtssAssigner()], ids=["tal", "atss"])
# published strides; coarse and not powers of two; four levels; levels with fewer than nine positions
GRIDS = [((96, 128), (8, 16, 32)), ((100, 70), (6, 20)), ((64, 64), (4, 8, 16, 64)), ((32, 64), (16, 32))]


@pytest.mark.parametrize(("size_hw", "strides"), GRIDS)
@pytest.mark.parametrize("kind", ["tal", "aided", "atss"])
def test_equal_to_loops(size_hw, strides, kind):
    per_cell = 3 if kind == "aided" else 1
    logits, boxes, _ = dense_predictions(4, size_hw, 5, strides, per_cell, seed=3, dtype=torch.float64)
    targets = random_targets(COUNTS, size_hw, 5, seed=3)
    if kind == "atss":
        found, expected = AtssAssigner(), looped_atss(targets, logits, boxes, strides, size_hw, 9)
    else:
        topk = 13 * (1 + (kind == "aided"))
        found = TaskAlignedAssigner(topk)
        expected = looped_task_aligned(targets, logits, boxes, strides, size_hw, topk, per_cell)
    found = found(logits, boxes, targets, strides, size_hw)
    assert rows_of_points(found) == pytest.approx(expected, abs=1e-9)
    assert len(expected) > 2
    order = found.image_index * logits.shape[1] + found.position
    assert (order.diff() > 0).all()


@BOTH
def test_images_and_order_of_objects_do_not_matter(assigner):
    size_hw, strides = (128, 96), (8, 16, 32)
    logits, boxes, _ = dense_predictions(4, size_hw, 5)
    targets = random_targets(COUNTS, size_hw, 5)
    together = rows_of_points(assigner(logits, boxes, targets, strides, size_hw))
    assert all(targets.image_index[target] == image for image, _, target in together)
    apart = {}
    for image in range(4):
        keep = (targets.image_index == image).nonzero()[:, 0]
        alone = repeated(targets, keep, torch.zeros(len(keep), dtype=torch.long), 1)
        found = assigner(logits[image : image + 1], boxes[image : image + 1], alone, strides, size_hw)
        apart |= {(image, p, int(keep[t])): score for (_, p, t), score in rows_of_points(found).items()}
    assert apart == pytest.approx(together, abs=1e-6)
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    order = order[targets.image_index[order].argsort(stable=True)]
    shuffled = rows_of_points(assigner(logits, boxes, repeated(targets, order), strides, size_hw))
    assert {(b, p, int(order[t])): s for (b, p, t), s in shuffled.items()} == pytest.approx(together, abs=1e-6)


@BOTH
@pytest.mark.parametrize("max_pairs", [1, 700])
def test_chunks_change_nothing(assigner, max_pairs):
    size_hw, strides = (128, 160), (8, 16, 32)
    logits, boxes, _ = dense_predictions(3, size_hw, 4)
    targets = random_targets([40, 0, 12], size_hw, 4)
    targets = repeated(targets, torch.arange(len(targets)).repeat_interleave(2))  # every object twice: ties
    whole = rows_of_points(assigner(logits, boxes, targets, strides, size_hw))
    chunked = type(assigner)(max_pairs=max_pairs)(logits, boxes, targets, strides, size_hw)
    assert rows_of_points(chunked) == whole
    assert {target % 2 for _, _, target in whole} == {0}  # the first of equals


@BOTH
@pytest.mark.parametrize("counts", [[0, 0], [0, 3]])
def test_empty_images(assigner, counts):
    logits, boxes, _ = dense_predictions(2, (64, 64), 1)
    found = assigner(logits, boxes, random_targets(counts, (64, 64), 1), (8, 16, 32), (64, 64))
    assert set(found.image_index.tolist()) <= {1}
    assert (len(found) > 0) == (sum(counts) > 0)
    assert found.score.dtype == torch.float32


@BOTH
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
def test_broken_predictions_are_survived(assigner, value):
    logits, boxes, _ = dense_predictions(2, (64, 64), 3)
    targets = random_targets([5, 3], (64, 64), 3)
    for broken in ((torch.full_like(logits, value), boxes), (logits, torch.full_like(boxes, value))):
        found = assigner(*broken, targets, (8, 16, 32), (64, 64))
        assert found.score.isfinite().all()


@BOTH
def test_objects_without_a_middle_inside_learn_nothing(assigner):
    logits, boxes, _ = dense_predictions(1, (64, 64), 3)
    corners = torch.tensor([[5.0, 5, 7, 7], [12, 12, 12, 12], [0, 0, 4, 4], [-9, -9, -1, -1]])  # middles: 4, 12, ...
    targets = repeated(random_targets([4], (64, 64), 3), torch.arange(4))
    targets = type(targets)(corners, targets.labels, targets.image_index, 1)
    assert len(assigner(logits, boxes, targets, (8, 16, 32), (64, 64))) == 0


@pytest.mark.parametrize("assigner", [TaskAlignedAssigner(max_pairs=2**14), AtssAssigner(max_pairs=2**14)])
def test_memory_does_not_grow_with_pairs_beyond_the_bound(assigner):
    """400 objects with up to 2100 positions inside each."""
    size_hw = (320, 320)
    logits, boxes, _ = dense_predictions(1, size_hw, 3)
    targets = random_targets([400], size_hw, 3)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        assert len(assigner(logits, boxes, targets, (8, 16, 32), size_hw)) > 50
    assert max(event.cpu_memory_usage for event in profile.events()) <= 2**14 * 4 * 8


def test_atss_needs_one_prediction_per_cell():
    logits, boxes, _ = dense_predictions(1, (64, 64), 3, per_cell=3)
    with pytest.raises(ValueError, match="one prediction"):
        AtssAssigner()(logits, boxes, random_targets([1], (64, 64), 3), (8, 16, 32), (64, 64))
