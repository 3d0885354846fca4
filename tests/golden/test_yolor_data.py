"""YOLOR's mosaics, affine maps, colour jitter, letterbox and suppression against the published implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cloverleaf.data.transforms.colour import jitter_hsv
from cloverleaf.data.transforms.geometry import (
    PerspectiveDraw,
    draw_perspective,
    perspective_matrix,
    warp,
    warp_image,
)
from cloverleaf.data.transforms.mixing import mosaic4, mosaic9
from cloverleaf.ops.boxes import cxcywh_to_xyxy
from cloverleaf.ops.letterbox import letterbox_shape
from cloverleaf.ops.nms import batched_nms
from cloverleaf.structures import Sample

# From OpenCV's pixel grid to ours, whose pixel centres lie at +0.5 (docs/fidelity.md, entry 31), and back.
MORE = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
LESS = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])


def images(seed: int, size: int, number: int = 12) -> list[Sample]:
    """The golden data set."""
    rng, samples = np.random.RandomState(seed), []
    for i in range(number):
        short = rng.randint(size // 2, size + 1)
        height, width = (size, short) if i % 2 else (short, size)
        pixels = rng.randint(0, 256, (height, width, 3)).astype(np.uint8)
        count = rng.randint(1, 5)
        sides, centres = rng.uniform(0.1, 0.5, (count, 2)), rng.uniform(0.3, 0.7, (count, 2))
        labels = rng.randint(0, 80, (count, 1))
        rows = np.concatenate((labels, centres, sides), 1).astype(np.float32)
        scale = np.array([width, height] * 2, np.float32)
        boxes = np.concatenate((rows[:, 1:3] - rows[:, 3:] / 2, rows[:, 1:3] + rows[:, 3:] / 2), 1) * scale
        samples.append(Sample(pixels, boxes, rows[:, 0].astype(np.int64)))
    return samples


def assert_labels(sample: Sample, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(sample.labels, expected[:, 0])
    np.testing.assert_allclose(sample.boxes_xyxy, expected[:, 1:], atol=1e-3)


@pytest.mark.parametrize("case", ["mosaic4", "mosaic9", "mosaic4_full"])
def test_mosaic_and_affine_map(golden, case):
    numbers = {key.split(".")[1]: value for key, value in golden("yolor/augment").items() if key.startswith(f"{case}.")}
    seed, size, first = numbers["seed_size_index"].tolist()
    draws, data = numbers["draws"].tolist(), images(seed, size)
    if case == "mosaic9":
        others, (y, x), draws, mosaic = draws[:8], draws[8:10], draws[10:], mosaic9
    else:
        (y, x), others, draws, mosaic = draws[:2], draws[2:5], draws[5:], mosaic4
    canvas = mosaic([data[int(i)] for i in (first, *others)], (int(y), int(x)), size)
    np.testing.assert_array_equal(canvas.image, numbers["canvas"])
    assert_labels(canvas, numbers["canvas_labels"])

    draw, output_hw = PerspectiveDraw(*draws), (size, size)
    assert_labels(warp(canvas, draw, output_hw), numbers["out_labels"])
    published = MORE @ perspective_matrix(draw, canvas.size_hw, output_hw) @ LESS
    difference = np.abs(warp_image(canvas.image, published, output_hw).astype(int) - numbers["out"])
    assert (difference <= 2).mean() >= 0.99


def test_zoom_is_even_about_one():
    """U(1 - s, 1 + s), where YOLOv7's range is a tenth longer upwards; every other draw is the same."""
    ends = {}
    for extra in (0.0, 0.1):
        seeds = (np.random.default_rng(seed) for seed in range(2000))
        draws = [draw_perspective(rng, translate=0.5, scale=0.8, extra_zoom=extra) for rng in seeds]
        zooms = [draw.scale for draw in draws]
        ends[extra] = min(zooms), max(zooms), draws[0].translate_x, draws[0].translate_y
    assert ends[0.0][:2] == pytest.approx((0.2, 1.8), abs=0.01) and max(ends[0.0][:2]) < 1.8
    assert ends[0.1][:2] == pytest.approx((0.2, 1.9), abs=0.01) and ends[0.0][2:] == ends[0.1][2:]


def test_hsv(golden):
    numbers = golden("yolor/augment")
    rgb = np.ascontiguousarray(numbers["hsv.in"][..., ::-1])  # stored as BGR
    out = jitter_hsv(Sample(rgb, np.zeros((0, 4), np.float32), np.zeros(0, np.int64)), numbers["hsv.gains"])
    assert np.abs(out.image[..., ::-1].astype(int) - numbers["hsv.out"]).max() <= 2


def test_letterbox(golden):
    for row in golden("yolor/augment")["letterbox"]:
        height, width, new_height, new_width, auto, scale_up, *expected = (int(value) for value in row)
        plan = letterbox_shape(
            (height, width), (new_height, new_width), auto=bool(auto), scale_up=bool(scale_up), stride=64
        )
        assert plan.output_hw == tuple(expected[:2])
        ratio, pad_x, pad_y = row[8:11]  # published before rounding; ours are those of the pixels
        np.testing.assert_allclose(plan.transform, (ratio, ratio, pad_x, pad_y), atol=0.5 + 1e-9)
        np.testing.assert_allclose(plan.transform[:2], ratio, atol=0.5 / min(height, width))
        top, _, left, _ = plan.padding
        inside = (top, top + plan.resized_hw[0], left, left + plan.resized_hw[1])
        assert inside == tuple(expected[5:])


@pytest.mark.parametrize("case", ["multilabel", "detect", "agnostic", "nc1", "classes"])
def test_suppression(golden, case):
    numbers = golden("yolor/nms")
    prediction = torch.from_numpy(numbers[f"{case}.pred"])
    confidence, iou, agnostic, merged = numbers[f"{case}.config"].tolist()
    assert not merged
    found = batched_nms(
        cxcywh_to_xyxy(prediction[..., :4]), prediction[..., 4:5] * prediction[..., 5:],
        confidence=confidence, iou=iou, multi_label=True, class_agnostic=bool(agnostic),
        classes=[1, 3] if case == "classes" else None,
    )  # fmt: skip
    for image, (boxes, scores, labels) in enumerate(found):
        expected = torch.from_numpy(numbers[f"{case}.out{image}"])
        assert len(boxes) == len(expected)
        torch.testing.assert_close(boxes, expected[:, :4], rtol=0, atol=1e-4 * float(expected[:, :4].max()))
        torch.testing.assert_close(scores, expected[:, 4], rtol=0, atol=1e-4)
        assert labels.tolist() == expected[:, 5].int().tolist()
