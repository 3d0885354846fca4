"""Transforms against numbers of the published implementation."""

from __future__ import annotations

import numpy as np
import pytest

from cloverleaf.data.transforms.colour import hsv_factors, hsv_tables, jitter_hsv
from cloverleaf.data.transforms.geometry import PerspectiveDraw, perspective_matrix, warp
from cloverleaf.data.transforms.mixing import draw_mosaic4_centre, draw_mosaic9_offset, mosaic4, mosaic9
from cloverleaf.structures import Sample


def make_sample(image, boxes, labels, **more) -> Sample:
    return Sample(image, np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(labels, np.int64), **more)


class Replay:
    """A generator that gives back stored draws."""

    def __init__(self, values) -> None:
        self.values = iter(np.asarray(values).tolist())

    def uniform(self, low: float, high: float) -> float:
        value = next(self.values)
        assert low <= value <= high
        return value


@pytest.mark.parametrize("case", ["p5_mosaic", "all_affine", "perspective"])
def test_random_perspective_of_boxes(golden, case):
    data = golden("yolov7/random_perspective")
    inputs, expected = data[f"{case}/targets_in"], data[f"{case}/targets_out"]
    draw = PerspectiveDraw(*data[f"{case}/draws"])
    hw, output_hw = tuple(data[f"{case}/image_hw"].tolist()), tuple(data[f"{case}/out_hw"].tolist())
    np.testing.assert_allclose(perspective_matrix(draw, hw, output_hw), data[f"{case}/M"], rtol=1e-9, atol=1e-9)
    out = warp(make_sample(np.zeros((*hw, 3), np.uint8), inputs[:, 1:], inputs[:, 0]), draw, output_hw)
    assert out.size_hw == output_hw
    np.testing.assert_array_equal(out.labels, expected[:, 0])
    np.testing.assert_allclose(out.boxes_xyxy, expected[:, 1:], atol=1e-4 * np.abs(expected).max())


def test_random_perspective_of_outlines(golden):
    """The published code samples 1000 points of each outline; ours is exact, so the boxes differ by that spacing."""
    data = {
        key.split("/")[1]: value for key, value in golden("yolov7/random_perspective").items() if "segments/" in key
    }
    inputs, expected = data["targets_in"], data["targets_out"]
    polygons = tuple((ring.astype(np.float32),) for ring in data["segments_in"])
    hw, output_hw = tuple(data["image_hw"].tolist()), tuple(data["out_hw"].tolist())
    draw = PerspectiveDraw(*data["draws"])
    np.testing.assert_allclose(perspective_matrix(draw, hw, output_hw), data["M"], rtol=1e-9, atol=1e-9)
    sample = make_sample(np.zeros((*hw, 3), np.uint8), inputs[:, 1:], inputs[:, 0], polygons=polygons)
    out = warp(sample, draw, output_hw)
    np.testing.assert_array_equal(out.labels, expected[:, 0])
    np.testing.assert_allclose(out.boxes_xyxy, expected[:, 1:], atol=0.5)
    inner = (expected[:, 1:] > 1) & (expected[:, 1:] < np.array(output_hw[::-1] * 2) - 1)
    assert inner.sum() >= 20
    np.testing.assert_allclose(out.boxes_xyxy[inner], expected[:, 1:][inner], atol=0.25)


@pytest.mark.parametrize("case", ["p5", "strong"])
def test_hsv(golden, case):
    data = golden("yolov7/hsv")
    factors = hsv_factors(data[f"{case}/u"], tuple(data[f"{case}/gains"]))
    tables = [data[f"{case}/lut_{name}"] for name in ("hue", "sat", "val")]
    np.testing.assert_array_equal(hsv_tables(factors), tables)
    rgb = np.ascontiguousarray(data[f"{case}/input_bgr"][..., ::-1])
    out = jitter_hsv(make_sample(rgb, [], []), factors).image[..., ::-1]
    assert np.abs(out.astype(int) - data[f"{case}/output_bgr"]).max() <= 1
    np.testing.assert_array_equal(rgb[..., ::-1], data[f"{case}/input_bgr"])


@pytest.mark.parametrize(
    ("case", "draw", "mosaic"),
    [("mosaic4", draw_mosaic4_centre, mosaic4), ("mosaic9", draw_mosaic9_offset, mosaic9)],
)
def test_mosaic(golden, case, draw, mosaic):
    data = golden("yolov7/mosaic")
    size = int(data[f"{case}/img_size"])
    tiles = []
    for (height, width), value, rows in zip(
        data[f"{case}/tile_hw"].tolist(), data[f"{case}/tile_values"].tolist(), data[f"{case}/labels_in"], strict=True
    ):
        centre, half = rows[:, 1:3] * [width, height], rows[:, 3:] * [width, height] / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1)
        tiles.append(make_sample(np.full((height, width, 3), value, np.uint8), boxes, rows[:, 0]))
    out = mosaic(tiles, draw(Replay(data[f"{case}/draws"]), size), size)
    np.testing.assert_array_equal(out.image[..., 0], data[f"{case}/canvas"])
    expected = data[f"{case}/labels_out"]
    np.testing.assert_array_equal(out.labels, expected[:, 0])
    np.testing.assert_allclose(out.boxes_xyxy, expected[:, 1:], atol=1e-4 * expected.max())
