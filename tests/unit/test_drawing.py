"""Boxes and labels on photographs: where they are, that they can be read, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

from cloverleaf.drawing.boxes import draw_boxes, place_labels
from cloverleaf.drawing.palette import COLOURS, class_colours, colour_of, ink_on, rgb
from cloverleaf.drawing.sheet import grid, legend
from cloverleaf.drawing.text import label_texts, printable


def test_boxes_are_drawn_where_they_are() -> None:
    image = np.full((100, 200, 3), 128, np.uint8)
    drawn = draw_boxes(image, np.array([[50, 40, 150, 90]]), np.array([0]), ("cell",), side=400)
    assert drawn.shape == (200, 400, 3) and (image == 128).all()
    changed = np.argwhere((drawn != 128).any(2))
    (top, left), (bottom, right) = changed.min(0), changed.max(0)
    assert abs(left - 100) <= 2 and abs(right - 300) <= 2 and abs(bottom - 180) <= 2
    assert 55 <= top <= 80  # the label stands above the box
    edge = drawn[150, 98:103].reshape(-1, 3)
    assert (edge == rgb(COLOURS[0])).all(1).any(), "colours must stay RGB"
    np.testing.assert_array_equal(draw_boxes(image, np.zeros((0, 4)), np.zeros(0, int), ()), image)


def test_outlines_are_shaded() -> None:
    image = np.zeros((80, 80, 3), np.uint8)
    ring = np.array([[20.0, 20], [60, 20], [60, 60]])
    drawn = draw_boxes(image, np.array([[20, 20, 60, 60]]), np.array([1]), "ab", outlines=[[ring]], texts="none")
    np.testing.assert_allclose(drawn[30, 50], 0.35 * np.array(rgb(COLOURS[1])), atol=1)
    assert drawn[50, 30].max() == 0  # inside the box, outside the outline


@pytest.mark.parametrize("frame_hw", [(320, 320), (60, 900), (12, 40)])
@pytest.mark.parametrize("every", [True, False])
def test_labels_stay_in_the_frame_and_off_each_other(frame_hw: tuple[int, int], every: bool) -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(-20, 0.9 * np.array(frame_hw[::-1]), (60, 2))
    boxes = np.concatenate([low, low + rng.uniform(2, 200, (60, 2))], 1)
    sizes = np.stack([rng.integers(10, 90, 60), np.full(60, 14)], 1)
    corners = place_labels(boxes, sizes, frame_hw, every)
    kept = ~np.isnan(corners[:, 0])
    assert kept.all() if every else kept.sum() < 60
    left, bottom = corners[kept].T
    width, height = sizes[kept].T
    assert (left >= 0).all() and (bottom <= max(frame_hw[0], 14)).all() and (bottom - height >= 0).all()
    assert (left + width <= np.maximum(frame_hw[1], width)).all()
    if not every:
        x = (left[:, None] < (left + width)[None]) & (left[None] < (left + width)[:, None])
        y = ((bottom - height)[:, None] < bottom[None]) & ((bottom - height)[None] < bottom[:, None])
        assert (x & y).sum() == kept.sum(), "each overlaps itself only"


def test_every_class_has_its_colour_and_ink_that_reads() -> None:
    table = class_colours(200)
    assert len(np.unique(table, axis=0)) == 200 and tuple(table[150]) == rgb(colour_of(150))
    light = table @ np.array([0.299, 0.587, 0.114])
    inks = [ink_on(tuple(row)) for row in table.tolist()]
    assert [ink == (0, 0, 0) for ink in inks] == (light > 140).tolist() and set(inks) == {(0, 0, 0), (255, 255, 255)}


def test_texts_that_the_fonts_lack_become_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("cell", "клетка", "细胞", "", "y" * 30)
    assert printable(names) == ["cell", "клетка", "class 2", "class 3", "y" * 21 + "…"]
    assert label_texts(names, [3, 0, 4]) == ["class 3", "cell", "y" * 22 + ".."]
    monkeypatch.setattr("cv2.__version__", "4.12.0")  # whose fonts are ASCII only
    assert label_texts(names, [2, 0]) == ["class 2", "cell"]


def test_sheets() -> None:
    tiles = [np.zeros((40, 60, 3), np.uint8), np.zeros((50, 30, 3), np.uint8), np.zeros((10, 10, 3), np.uint8)]
    assert grid(tiles, 2).shape == (2 * 58 + 8, 2 * 68 + 8, 3) and grid([], 3).shape == (64, 64, 3)
    assert legend([f"name {k}" for k in range(100)], 500).shape[1] == 500 and legend((), 100).shape[1] == 100
