"""The anchor check against the published metrics, and the fitting that follows from it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cloverleaf.training.anchors import check_anchors, fit_anchors, label_sizes, resolve_anchors

TINY = torch.tensor(
    [[10.0, 13], [16, 30], [33, 23], [30, 61], [62, 45], [59, 119], [116, 90], [156, 198], [373, 326]]
).view(3, 3, 2)


@pytest.mark.parametrize("name", ["p5", "tiny", "bad"])
def test_metrics(golden, name):
    numbers = golden("yolov7/autoanchor")
    fit = check_anchors(numbers["wh"], numbers[f"{name}/anchors"], 4.0)
    actual = (fit.bpr, fit.anchors_above_threshold, fit.fitness)
    expected = [numbers[f"{name}/{key}"] for key in ("bpr", "anchors_above_threshold", "fitness")]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def index_of(boxes_xyxy, offsets, sizes_hw):
    boxes_xyxy = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    return SimpleNamespace(
        boxes_xyxy=boxes_xyxy,
        crowd=np.zeros(len(boxes_xyxy), dtype=bool),
        object_offsets=np.asarray(offsets),
        sizes_hw=np.asarray(sizes_hw),
    )


def test_label_sizes(golden):
    numbers = golden("yolov7/autoanchor")
    shapes_wh, labels = numbers["dataset/shapes_wh"], numbers["dataset/labels"]
    scale = np.tile(shapes_wh, 2)[:, None]
    boxes = np.concatenate((labels[..., 1:3] - labels[..., 3:] / 2, labels[..., 1:3] + labels[..., 3:] / 2), -1) * scale
    index = index_of(boxes, [0, 4, 8, 12], shapes_wh[:, ::-1])
    np.testing.assert_allclose(label_sizes(index, 640), numbers["dataset/wh_no_jitter"], rtol=1e-9)


def sizes_index(sizes, per_image=5):
    count = len(sizes) // per_image
    boxes = np.concatenate((np.zeros_like(sizes), sizes), 1)
    return index_of(boxes, np.arange(count + 1) * per_image, np.full((count, 2), 640))


def test_fitted_anchors_are_better_and_repeat():
    rng = np.random.default_rng(0)
    sizes = rng.uniform(3, 9, (300, 2))  # far below the anchors of the model
    anchors, report = resolve_anchors(sizes_index(sizes), TINY, image_size=640, anchor_t=4.0, seed=3)
    again, _ = resolve_anchors(sizes_index(sizes), TINY, image_size=640, anchor_t=4.0, seed=3)
    assert torch.equal(anchors, again)
    assert anchors.shape == TINY.shape and "fitted" in report
    assert check_anchors(sizes, anchors.numpy(), 4.0).bpr > 0.99 > check_anchors(sizes, TINY.numpy(), 4.0).bpr
    areas = anchors.prod(-1).flatten()
    assert (areas.diff() >= 0).all()


def test_evolution_only_improves():
    rng = np.random.default_rng(1)
    sizes = np.exp(rng.uniform(1, 6, (400, 2)))
    fitness = [
        check_anchors(sizes, fit_anchors(sizes, 9, 4.0, np.random.default_rng(5), generations), 4.0).fitness
        for generations in (0, 50, 400)
    ]
    assert fitness[0] <= fitness[1] <= fitness[2]
    assert fitness[2] > fitness[0]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (np.zeros((0, 2)), "no labels"),
        (np.full((5, 2), 2.1), "too few different labels"),
        (np.random.default_rng(0).uniform(20, 200, (100, 2)), "kept (best possible recall 1.0000"),
        (np.full((5, 2), np.nan), "no labels"),
    ],
)
def test_kept(sizes, expected):
    anchors, report = resolve_anchors(sizes_index(sizes), TINY, image_size=640, anchor_t=4.0, seed=0)
    assert anchors is TINY
    assert expected in report
