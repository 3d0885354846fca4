"""Letterbox: golden pixels, golden way back, and the truth of the stored transform."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cloverleaf.ops.letterbox import letterbox, letterbox_shape, unletterbox_boxes
from golden.fill import image as filled_image

CASES = ["auto", "auto_stride64", "square", "no_scaleup", "fill", "odd_pad", "pad_only"]
NAMES = {"auto": "auto", "scaleup": "scale_up", "scaleFill": "scale_fill", "stride": "stride"}


@pytest.mark.parametrize("case", CASES)
def test_matches_published_pixels_and_way_back(golden, case):
    data = {k.removeprefix(f"{case}/"): v for k, v in golden("yolov7/letterbox").items() if k.startswith(f"{case}/")}
    height, width, seed = data["input.hw_seed"].tolist()
    image = (filled_image(height, width, 1, seed)[0] * 255).astype(np.uint8).transpose(1, 2, 0)
    options = {NAMES[key[4:]]: value.item() for key, value in data.items() if key.startswith("arg.")}
    size = tuple(np.broadcast_to(data["new_shape"], 2).tolist())
    out, transform = letterbox(np.ascontiguousarray(image), size, **options)
    assert out.shape == tuple(data["out.shape"])
    tolerance = 0 if case == "pad_only" else 1
    assert np.abs(out.ravel()[data["out.index"]].astype(int) - data["out.value"]).max() <= tolerance
    # Published: the ratio and half padding before rounding; ours: what was done to the pixels.
    plan = letterbox_shape((height, width), size, **options)
    assert plan.output_hw == out.shape[:2]
    assert plan.transform == transform
    np.testing.assert_allclose(np.array(transform[:2]) * [width, height], data["ratio"] * [width, height], atol=0.5)
    np.testing.assert_allclose(transform[2:], data["pad_dw_dh"], atol=0.5)
    # The published way back uses the x ratio for both axes.
    published = (*data["ratio"][[0, 0]].tolist(), *data["pad_dw_dh"].tolist())
    back = unletterbox_boxes(data["boxes_in"], published, (height, width))
    expected = data["scale_coords_ratio_pad"]
    np.testing.assert_allclose(back, expected, atol=1e-4 * np.abs(expected).max())
    tensor = unletterbox_boxes(torch.from_numpy(data["boxes_in"]), published, (height, width))
    np.testing.assert_allclose(tensor, back, atol=1e-5)


@pytest.mark.parametrize("hw", [(97, 61), (61, 97), (300, 200), (1, 1), (1, 5000), (64, 64)])
@pytest.mark.parametrize("scale_fill", [False, True])
def test_transform_is_true_to_the_pixels(hw, scale_fill):
    """A white rectangle is found where the transform says, and comes back where it was."""
    image = np.zeros((*hw, 3), np.uint8)
    box = np.array([[hw[1] // 4, hw[0] // 4, hw[1] - hw[1] // 4, hw[0] - hw[0] // 4]], np.float32)
    x1, y1, x2, y2 = box[0].astype(int)
    image[y1:y2, x1:x2] = 255
    out, (scale_x, scale_y, left, top) = letterbox(image, (128, 160), scale_fill=scale_fill, colour=0)
    assert out.shape == (128, 160, 3)
    moved = box * np.array([scale_x, scale_y] * 2, np.float32) + np.array([left, top] * 2, np.float32)
    rows, columns = np.flatnonzero(out[..., 0].max(1) > 127), np.flatnonzero(out[..., 0].max(0) > 127)
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose(moved[0], found, atol=1.0)
    np.testing.assert_allclose(unletterbox_boxes(moved, (scale_x, scale_y, left, top), hw), box, rtol=1e-4, atol=1e-3)
