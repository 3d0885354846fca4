"""Masks and classes per pixel: exact from run lengths, moved with the image, nothing learned from padding."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from faster_coco_eval.core import mask as coco_mask

from cloverleaf.data.collate import TargetOptions, collate, label_pixels
from cloverleaf.data.config import AugmentConfig, DataConfig
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.label_map import label_map
from cloverleaf.data.loader import build_train_loader
from cloverleaf.data.outline import decode, outline
from cloverleaf.data.policy import TrainPolicy, load_sample
from cloverleaf.data.records import RunLength
from cloverleaf.data.source import open_index
from cloverleaf.data.transforms.geometry import flip, letterbox_sample
from cloverleaf.data.transforms.polygons import areas, fill_mask
from cloverleaf.structures import Targets

CALM = AugmentConfig(mosaic=0, mixup=0, paste_in=0, hsv_h=0, hsv_s=0, hsv_v=0, fliplr=0, scale=0, translate=0)


def encoded(pixels: np.ndarray) -> RunLength:
    found = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"]
    return RunLength(pixels.shape, found if isinstance(found, bytes) else found.encode())


def drawn(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows], np.uint8)


RING = drawn("........", ".######.", ".#....#.", ".#.##.#.", ".#.##.#.", ".#....#.", ".######.", "........")


@pytest.mark.parametrize(
    ("pixels", "rings"),
    [
        (drawn("."), 0),
        (drawn("#"), 1),
        (drawn("##.", "..#", ".#."), 3),  # parts that touch at corners only
        (RING, 2),  # an island in a hole
        (drawn("#####", "#.#.#", "#####", "#.#.#", "#####"), 1),  # four holes
        (drawn("####", "#..#", "#.##", "##.#", "####"), 1),  # holes that touch at a corner
    ],
)
def test_outlines_of_masks_have_their_parts_and_holes(pixels: np.ndarray, rings: int) -> None:
    found = outline(encoded(pixels))
    assert len(found) == rings
    np.testing.assert_array_equal(fill_mask(found, pixels.shape), pixels)
    assert areas([found])[0] == pixels.sum()
    large = fill_mask(tuple(ring * 3 for ring in found), (pixels.shape[0] * 3, pixels.shape[1] * 3))
    np.testing.assert_array_equal(large, pixels.repeat(3, 0).repeat(3, 1))  # also between the pixels' centres


def test_random_masks_come_back_from_their_outlines() -> None:
    rng = np.random.default_rng(1)
    for _ in range(60):
        pixels = (rng.random(rng.integers(1, 12, 2)) < rng.choice([0.3, 0.6, 0.9])).astype(np.uint8)
        np.testing.assert_array_equal(fill_mask(outline(encoded(pixels)), pixels.shape), pixels)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DetectionIndex:
    """One 48 x 32 image: a large disc (0) with a small square (1) on it, a ring (1), and a crowd at the right."""
    folder = tmp_path_factory.mktemp("masks")
    height, width = 48, 32
    y, x = np.mgrid[:height, :width]
    disc = ((x - 12) ** 2 + (y - 14) ** 2 <= 100).astype(np.uint8)
    square, ring, crowd = np.zeros((3, height, width), np.uint8)
    square[10:15, 9:14] = 1
    ring[30:46, 4:20] = RING.repeat(2, 0).repeat(2, 1)
    crowd[:, 28:] = 1
    cv2.imwrite(str(folder / "a.png"), np.full((height, width, 3), 90, np.uint8))
    annotations = []
    for number, (pixels, category, is_crowd) in enumerate(
        [(square, 2, 0), (disc, 1, 0), (ring, 2, 0), (crowd, 1, 1)], start=1
    ):
        counts = encoded(pixels).counts.decode()
        rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
        box = [columns[0], rows[0], columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]]
        annotations.append({
            "id": number, "image_id": 1, "category_id": category, "bbox": [int(v) for v in box],
            "area": int(pixels.sum()), "iscrowd": is_crowd,
            "segmentation": {"size": [height, width], "counts": counts},
        })  # fmt: skip
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": height, "width": width}], "annotations": annotations,
        "categories": [{"id": 1, "name": "disc"}, {"id": 2, "name": "other"}],
    }  # fmt: skip
    (folder / "train.json").write_text(json.dumps(content))
    return open_index(folder / "train.json", "train")


def test_label_map_is_exact_small_on_top_and_leaves_crowds_out(index: DetectionIndex) -> None:
    found = label_map(index, 0)
    assert found.dtype == np.uint8 and found.shape == (48, 32)
    assert found[12, 11] == 2 and found[14, 18] == 1 and found[0, 0] == 0
    np.testing.assert_array_equal(found[30:46, 4:20], np.where(RING, 2, 0).repeat(2, 0).repeat(2, 1))
    assert (found[:, 28:] == 255).all() and (found[:, :28] != 255).all()


def test_training_pixels_are_the_label_map_and_padding_does_not_count(index: DetectionIndex) -> None:
    sample = load_sample(index, 0, 48, augmenting=True, semantic=True)
    np.testing.assert_array_equal(label_pixels(sample, TargetOptions(semantic=True)), label_map(index, 0))
    boxed = letterbox_sample(sample, 48)
    pixels = label_pixels(boxed, TargetOptions(semantic=True))
    np.testing.assert_array_equal(pixels[:, 8:40], label_map(index, 0))
    assert (pixels[:, :8] == 255).all() and (pixels[:, 40:] == 255).all()
    np.testing.assert_array_equal(label_pixels(flip(boxed, horizontal=True), TargetOptions()), pixels[:, ::-1])


def test_masks_are_exact_through_the_loader_and_leave_crowds_out(index: DetectionIndex) -> None:
    batch = next(iter(loader(index, TargetOptions(masks=True, semantic=True), CALM)))
    targets = batch.targets.unpacked()
    assert targets.packed_masks is None and targets.masks is not None and targets.masks.dtype == torch.uint8
    assert targets.masks.shape == (3, 64, 64) and targets.semantic is not None
    assert targets.semantic.dtype == torch.int64 and targets.semantic.shape == (1, 64, 64)
    for mask, box in zip(targets.masks, targets.boxes_xyxy.tolist(), strict=True):
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        found = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
        np.testing.assert_allclose(found, box, atol=0.51)
    width, height = (targets.boxes_xyxy[2, 2:] - targets.boxes_xyxy[2, :2]).tolist()
    share = RING.sum() / 36  # of its box: its hole is a hole
    assert int(targets.masks[2].sum()) == pytest.approx(share * width * height, rel=0.1)


def loader(index: DetectionIndex, targets: TargetOptions, augment: AugmentConfig):
    data = DataConfig(image_size=64, batch_size=1, workers=0)
    return build_train_loader(index, data, augment, epochs=2, seed=0, targets=targets)


def test_mosaics_and_zooms_keep_what_is_padding(index: DetectionIndex) -> None:
    """The pictures are grey 90, padding is grey 114: they tell which pixels may count."""
    augment = replace(CALM, mosaic=1.0, mosaic9=0.0, scale=0.5, translate=0.3, degrees=20)
    policy = TrainPolicy(index, augment, 64, seed=0, semantic=True)
    samples = [policy.build(epoch, 0) for epoch in range(8)]
    pixels = np.stack([label_pixels(sample, TargetOptions(semantic=True)) for sample in samples])
    grey = np.stack([sample.image[..., 0] for sample in samples])
    assert (grey == 114).sum() > 3000 and (pixels[grey == 114] == 255).mean() > 0.98
    assert (grey == 90).sum() > 3000 and (pixels[grey == 90] == 255).mean() < 0.3  # crowds only


def test_objects_without_outline_are_left_out_or_boxes(index: DetectionIndex) -> None:
    sample = load_sample(index, 0, 48, augmenting=True)
    bare = replace(sample, polygons=((), *sample.polygons[1:]))
    assert len(collate([bare], TargetOptions(masks=True)).targets) == 2
    assert len(collate([bare]).targets) == 3
    full = collate([bare], TargetOptions(masks=True, boxes_as_masks=True)).targets.unpacked()
    assert int(full.masks[0].sum()) == 25 and len(full) == 3
    assert index.outlined().all()


def test_packed_masks_of_any_width_come_back() -> None:
    masks = torch.randint(0, 2, (3, 5, 24), dtype=torch.uint8)
    packed = torch.from_numpy(np.packbits(masks.numpy(), axis=2))
    targets = Targets(torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64), torch.zeros(3, dtype=torch.int64), 1,
                      packed_masks=packed)  # fmt: skip
    assert torch.equal(targets.unpacked().masks, masks) and targets.unpacked().unpacked().masks is not None


@pytest.mark.shared_data
def test_masks_of_a_real_set_come_back(shared_data: Path) -> None:
    content = json.loads((shared_data / "nuclei" / "annotations" / "val.json").read_text())
    for row in content["annotations"][::4]:
        mask = RunLength(tuple(row["segmentation"]["size"]), row["segmentation"]["counts"].encode())
        np.testing.assert_array_equal(fill_mask(outline(mask), mask.size_hw), decode(mask))
