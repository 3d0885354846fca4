"""Masks back to original pixels, run lengths, and what detections with masks are made into."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch.nn import functional as F

from cloverleaf.ops.letterbox import letterbox
from cloverleaf.ops.masks import compressed, paste_masks, run_lengths, to_label_map, unletterbox
from cloverleaf.structures import Detections, LabelMap, Mask


def test_a_full_mask_is_its_box_and_may_reach_beyond_the_image() -> None:
    boxes = np.array([[2, 3, 12, 9], [-5, -4, 4, 4], [15, 15, 30, 40], [30, 30, 40, 40], [4.5, 4.5, 6.5, 6.5]])
    masks = paste_masks(np.ones((5, 28, 28), np.float32), boxes, (20, 18))
    corners = [(2, 3, 12, 9), (0, 0, 4, 4), (15, 15, 18, 20), (0, 0, 0, 0)]
    for mask, (x1, y1, x2, y2) in zip(masks[:4], corners, strict=True):
        full = np.zeros((20, 18), bool)
        full[y1:y2, x1:x2] = True
        np.testing.assert_array_equal(mask.full((20, 18)), full)
        assert mask.area == full.sum()
    assert masks[4].full((20, 18))[5, 5] and masks[4].area <= 9  # three by three centres lie in it or on its edge


@pytest.mark.parametrize("seed", range(3))
def test_pasting_is_bilinear_sampling(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = rng.random((1, 28, 28)).astype(np.float32)
    x1, y1, w, h = rng.uniform(5, 60, 4)
    pasted = paste_masks(grid, np.array([[x1, y1, x1 + w, y1 + h]]), (140, 130))[0].full((140, 130))
    y, x = torch.meshgrid(torch.arange(140) + 0.5, torch.arange(130) + 0.5, indexing="ij")
    where = torch.stack([2 * (x - x1) / w - 1, 2 * (y - y1) / h - 1], -1)[None].float()
    expected = F.grid_sample(torch.from_numpy(grid)[None], where, align_corners=False)[0, 0].numpy()
    clear = np.abs(expected - 0.5) > 1e-4
    np.testing.assert_array_equal(pasted[clear], (expected > 0.5)[clear])


@pytest.mark.parametrize("hw", [(1, 1), (5, 7), (40, 3), (9, 30)])
def test_run_lengths_are_those_of_coco(hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for share in (0.0, 0.2, 0.5, 1.0):
        full = rng.random(hw) < share
        rows, columns = sorted(rng.integers(0, hw[0] + 1, 2)), sorted(rng.integers(0, hw[1] + 1, 2))
        inside = np.zeros(hw, bool)
        inside[rows[0] : rows[1], columns[0] : columns[1]] = True
        for whole, mask in (
            (full, Mask(0, 0, full)),
            (full & inside, Mask(int(columns[0]), int(rows[0]), full[rows[0] : rows[1], columns[0] : columns[1]])),
        ):
            reference = coco_mask.encode(np.asfortranarray(whole.astype(np.uint8)))
            assert compressed(mask, hw)["counts"] == reference["counts"].decode()
            assert sum(run_lengths(mask, hw)) == hw[0] * hw[1]


@pytest.mark.parametrize("hw", [(37, 90), (64, 64), (200, 71), (20, 20)])
@pytest.mark.parametrize("auto", [True, False])
def test_label_maps_undo_the_letterbox(hw: tuple[int, int], auto: bool) -> None:
    """Halves of a picture are told apart by a network that only looks at brightness; the edge comes back in place."""
    image = np.full((*hw, 3), 20, np.uint8)
    image[:, hw[1] // 2 :] = 220
    image[: hw[0] // 2, : hw[1] // 4] = 220
    boxed, transform = letterbox(image, 64, auto=auto)
    value = torch.from_numpy(boxed[..., 0]).float()
    padding_is_worst = torch.where(value == 114, 999.0, 0.0)
    found = to_label_map(torch.stack([120 - value, value - 120, padding_is_worst]), transform, hw)
    assert found.dtype == np.uint8 and found.shape == hw and found.max() == 1
    wrong = found != (image[..., 0] > 120)
    assert wrong.mean() < 0.06  # pixels at the edges, where the resized image is in between
    assert not wrong[:, 3 * hw[1] // 4 :].any() and not wrong[3 * hw[0] // 4 :, : hw[1] // 8].any()


def test_label_maps_of_large_images_come_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(0))
    whole = to_label_map(logits, (0.4, 0.4, 0.0, 0.0), (40, 60))
    monkeypatch.setattr("cloverleaf.ops.masks._MOST_LOGITS", 3 * 60 * 7)
    np.testing.assert_array_equal(to_label_map(logits, (0.4, 0.4, 0.0, 0.0), (40, 60)), whole)
    expected = F.interpolate(logits[None], size=(40, 60), mode="bilinear", align_corners=False)[0].argmax(0)
    np.testing.assert_array_equal(whole, expected.numpy())
    assert to_label_map(torch.zeros(300, 4, 4), (1, 1, 0, 0), (4, 4)).dtype == np.uint16


def test_boxes_beyond_the_image_keep_their_place() -> None:
    boxes = np.array([[0.0, 10, 64, 60]])
    np.testing.assert_allclose(unletterbox(boxes, (0.5, 0.5, 8.0, 20.0)), [[-16, -20, 112, 80]])


def test_detections_keep_their_masks() -> None:
    masks = (Mask(1, 2, np.ones((3, 2), bool)), Mask(0, 0, np.zeros((0, 0), bool)), Mask(4, 4, np.eye(3, dtype=bool)))
    found = Detections(np.zeros((3, 4), np.float32), np.array([0.9, 0.8, 0.7], np.float32), np.array([0, 1, 0]),
                       ("a", "b"), (8, 9), masks=masks)  # fmt: skip
    full = found.full_masks()
    assert full is not None and full.shape == (3, 8, 9) and full.sum((1, 2)).tolist() == [6, 0, 3]
    assert [m.area for m in found[[2, 0]].masks or ()] == [3, 6] and [
        m.area for m in found[found.labels == 1].masks or ()
    ] == [0]
    assert found.to_supervision().mask.shape == (3, 8, 9) and len(found[1:]) == 2
    assert LabelMap(np.array([[0, 1], [1, 1]], np.uint8), ("background", "a", "b")).shares == {
        "background": 0.25,
        "a": 0.75,
    }
