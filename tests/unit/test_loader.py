"""Batches: repeatable, resumable, shared out between processes, and undisturbed by bad files."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cloverleaf.data.cache import ImageCache, open_cache
from cloverleaf.data.collate import TargetOptions
from cloverleaf.data.config import AugmentConfig, DataConfig
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.loader import build_eval_loader, build_train_loader, collate, rectangle_hw, resolve_workers
from cloverleaf.data.policy import TrainPolicy, load_sample, mosaic_allowed
from cloverleaf.data.sampler import EpochSampler, EvalBatchSampler, TrainBatchSampler
from cloverleaf.data.source import open_index
from cloverleaf.errors import ConfigError, DataError, ImageError
from cloverleaf.ops.letterbox import unletterbox_boxes

SIZES = [(60, 90), (64, 64), (120, 80), (50, 100), (200, 150)]
STRONG = AugmentConfig(mosaic=0.7, mixup=0.5, copy_paste=0.5, paste_in=0.5, degrees=5, flipud=0.5)


def make_dataset(folder: Path, num_images: int = 13) -> Path:
    """White rectangles with outlines, one crowd region and one image without objects, as COCO."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for i in range(num_images):
        height, width = SIZES[i % len(SIZES)]
        pixels = rng.integers(0, 80, (height, width, 3), dtype=np.uint8)
        images.append({"id": 100 + i, "file_name": f"{i:03}.png", "height": height, "width": width, "tags": [1]})
        for k in range(i % 4):
            x, y, w, h = 5 + 11 * k, 8 + 9 * k, 20 + k, 15 + 2 * k
            pixels[y : y + h, x : x + w] = 255
            ring = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append({
                "id": len(annotations) + 1, "image_id": 100 + i, "category_id": 1 + k % 2, "bbox": [x, y, w, h],
                "area": w * h, "iscrowd": int(i == 3 and k == 2), "identity": k,
                "segmentation": {"size": [height, width], "counts": runs(x, y, w, h, height, width)}
                if i == 3 and k == 2 else [ring],
            })  # fmt: skip
        cv2.imwrite(str(folder / "images" / f"{i:03}.png"), pixels)
    categories = [{"id": 1, "name": "even"}, {"id": 2, "name": "odd"}]
    content = {"images": images, "annotations": annotations, "categories": categories, "tags": [{"id": 1, "name": "t"}]}
    (folder / "annotations").mkdir()
    for split in ("train", "val"):
        (folder / "annotations" / f"{split}.json").write_text(json.dumps(content))
    return folder


def runs(x, y, w, h, height, width):
    mask = np.zeros((height, width), int)
    mask[y : y + h, x : x + w] = 1
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    return np.diff(np.concatenate([[0], edges, [len(flat)]] if edges[-1] < len(flat) else [[0], edges])).tolist()


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> DetectionIndex:
    return open_index(make_dataset(tmp_path_factory.mktemp("loader") / "set"), "train")


def data_config(**changes) -> DataConfig:
    return replace(DataConfig(image_size=64, batch_size=4, workers=0), **changes)


def epoch_of(loader, epoch: int) -> list:
    loader.batch_sampler.sampler.set_epoch(epoch)
    return list(loader)


def assert_same(first, second):
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.targets.boxes_xyxy, b.targets.boxes_xyxy)
        assert torch.equal(a.image_ids, b.image_ids) and torch.equal(a.targets.image_index, b.targets.image_index)


@pytest.mark.parametrize(("workers", "cache"), [(1, "none"), (2, "none"), (2, "ram"), (2, "disk"), (0, "ram")])
def test_batches_do_not_depend_on_workers_or_cache(index, workers, cache):
    plain = build_train_loader(index, data_config(), STRONG, epochs=5, seed=7)
    other = build_train_loader(index, data_config(workers=workers, cache=cache), STRONG, epochs=5, seed=7)
    first = epoch_of(plain, 1)
    assert_same(first, epoch_of(other, 1))
    assert_same(epoch_of(plain, 2), epoch_of(other, 2))
    assert not torch.equal(first[0].images, epoch_of(plain, 2)[0].images)
    assert first[0].images.is_contiguous(memory_format=torch.channels_last)
    assert first[0].images.shape == (4, 3, 64, 64) and first[0].images.dtype == torch.uint8


@pytest.mark.parametrize("cache", ["none", "ram"])
def test_files_scaled_after_they_were_labelled(tmp_path, cache):
    """Boxes are in pixels of the labelled size, whatever the file has become; cached or not, evaluated or trained."""
    index = open_index(make_dataset(tmp_path / "set"), "train")
    row = 3
    path, (height, width) = index.image_path(row), index.size_hw(row)
    cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (width // 2, height // 2)))
    sample = load_sample(index, row, 64, open_cache(index, 64, cache, area=False), augmenting=False)
    assert sample.original_hw == (height, width)
    expected = index.objects(row).boxes_xyxy * 64 / max(height, width)
    np.testing.assert_allclose(sample.boxes_xyxy, expected, atol=0.5)


def test_epoch_and_seed_change_samples_and_order(index):
    policy, other = TrainPolicy(index, STRONG, 64, seed=0), TrainPolicy(index, STRONG, 64, seed=1)
    one = policy.build(0, 3).image
    assert np.array_equal(one, TrainPolicy(index, STRONG, 64, seed=0).build(0, 3).image)
    assert not np.array_equal(one, policy.build(1, 3).image) and not np.array_equal(one, other.build(0, 3).image)
    orders = {tuple(i for _, i in EpochSampler(13, seed=seed)) for seed in range(5)}
    assert len(orders) == 5 and all(sorted(order) == list(range(13)) for order in orders)


def test_labels_fit_the_augmented_pixels(index):
    """Objects are white on dark noise: most of what a mask covers must be white, whatever was drawn."""
    augment = replace(STRONG, mixup=0.0, hsv_s=0.0, hsv_h=0.0, hsv_v=0.0, copy_paste=0.0, mosaic9=0.0, paste_in=0.0)
    loader = build_train_loader(index, data_config(), augment, epochs=9, seed=0, targets=TargetOptions(masks=True))
    white, covered, boxes = 0, 0, 0
    for batch in epoch_of(loader, 0) + epoch_of(loader, 1):
        bright = batch.images[batch.targets.image_index].amin(1) > 150
        masks = batch.targets.unpacked().masks.bool()
        assert masks.shape == (len(batch.targets), 64, 64)
        white, covered, boxes = white + (bright & masks).sum(), covered + masks.sum(), boxes + len(masks)
        box = batch.targets.boxes_xyxy
        assert ((box >= 0) & (box <= 64)).all() and (box[:, 2:] - box[:, :2] > 2).all()
        assert batch.targets.labels.max() <= 1 and batch.targets.tags.eq(1).all()
    assert boxes > 30 and white / covered > 0.85


def test_resuming_in_the_middle_continues_the_stream(index):
    straight = build_train_loader(index, data_config(), STRONG, epochs=5, seed=7)
    whole = epoch_of(straight, 2)
    resumed = build_train_loader(index, data_config(), STRONG, epochs=5, seed=7)
    sampler = resumed.batch_sampler.sampler
    sampler.resume(2, 8)
    sampler.set_epoch(2)  # what a trainer does at the start of the epoch must not undo it
    assert_same(whole[2:], list(resumed))
    assert len(resumed) == len(whole)
    sampler.set_epoch(3)
    assert_same(epoch_of(straight, 3), list(resumed))
    with pytest.raises(ValueError, match="start"):
        sampler.resume(2, 99)


@pytest.mark.parametrize("num_images", [1, 7, 9, 10, 13, 16])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_training_shards(num_images, world):
    """Equal steps everywhere, nothing lost, and the n-th batches together are the n-th batch of one process."""
    samplers = [EpochSampler(num_images, seed=3, rank=rank, world_size=world) for rank in range(world)]
    shards = [list(sampler) for sampler in samplers]
    assert {len(shard) for shard in shards} == {len(samplers[0])}
    assert {i for shard in shards for _, i in shard} == set(range(num_images))
    single = list(TrainBatchSampler(EpochSampler(num_images, seed=3), 2 * world))
    split = [list(TrainBatchSampler(sampler, 2)) for sampler in samplers]
    assert {len(batches) for batches in split} == {len(single)} == {len(TrainBatchSampler(samplers[0], 2))}
    for step in range(num_images // (2 * world)):
        assert set(single[step]) <= {key for batches in split for key in batches[step]}


@pytest.mark.parametrize(("num_images", "sizes"), [(9, [4, 5]), (10, [4, 4, 2]), (8, [4, 4]), (1, [1]), (3, [3])])
def test_a_single_left_over_sample_joins_the_last_batch(num_images, sizes):
    batches = TrainBatchSampler(EpochSampler(num_images, seed=0), 4)
    assert [len(batch) for batch in batches] == sizes and len(batches) == len(sizes)
    if num_images > 4:
        batches.sampler.resume(0, 4)
        assert [len(batch) for batch in batches] == sizes[1:]


@pytest.mark.parametrize("rectangular", [True, False])
@pytest.mark.parametrize("world", [1, 2])
def test_evaluation_sees_every_image_once(index, rectangular, world):
    seen = []
    for rank in range(world):
        data = data_config(rectangular_eval=rectangular, batch_size=3)
        loader = build_eval_loader(index, data, stride=32, batch_size=3, rank=rank, world_size=world)
        for batch in loader:
            seen += batch.image_ids.tolist()
            assert all(side % 32 == 0 for side in batch.size_hw)
            assert rectangular or batch.size_hw == (64, 64)
            for k, image_id in enumerate(batch.image_ids.tolist()):
                objects = index.objects(image_id - 100)
                rows = batch.targets.image_index == k
                transform, original_hw = tuple(batch.letterbox[k].tolist()), tuple(batch.original_hw[k].tolist())
                back = unletterbox_boxes(batch.targets.boxes_xyxy[rows], transform, original_hw)
                np.testing.assert_allclose(back, objects.boxes_xyxy[~objects.crowd], atol=1e-3)
                for x1, y1, x2, y2 in batch.targets.boxes_xyxy[rows].round().int().tolist():
                    assert batch.images[k, :, y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].float().mean() > 240
    assert sorted(seen) == [100 + i for i in range(len(index))]


def test_rectangles_follow_the_published_rule():
    assert rectangle_hw(np.array([0.5, 0.75]), 640, 32) == (512, 672)
    assert rectangle_hw(np.array([1.5, 2.0]), 640, 32) == (672, 448)
    assert rectangle_hw(np.array([0.5, 2.0]), 640, 32) == (672, 672)
    assert rectangle_hw(np.array([1.0, 1.0]), 320, 32) == (352, 352)
    batches = [list(range(k, k + 2)) for k in range(0, 10, 2)]
    ranks = [list(EvalBatchSampler(batches, rank=rank, world_size=2)) for rank in (0, 1)]
    assert sorted(ranks[0] + ranks[1]) == batches and [len(rank) for rank in ranks] == [3, 2]


def test_mosaic_is_closed_in_the_last_epochs(index):
    augment = AugmentConfig(close_mosaic=3)
    assert [mosaic_allowed(epoch, 10, augment) for epoch in (0, 6, 7, 9)] == [True, True, False, False]
    quiet = replace(augment, translate=0, scale=0, fliplr=0, hsv_h=0, hsv_s=0, hsv_v=0, paste_in=0)
    bare = TrainPolicy(index, quiet, 64, seed=0).build(9, 1, mosaic_allowed=False)  # 64 x 64: only zoom in [1, 1.1]
    assert np.abs(bare.boxes_xyxy - index.objects(1).boxes_xyxy).max() < 4


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_do_not_stop_anything(tmp_path, caplog, capfd, workers):
    index = open_index(make_dataset(tmp_path / "bad", 9), "train")
    loader = build_train_loader(index, data_config(workers=workers), STRONG, epochs=5, seed=0)
    path = index.image_path(4)
    path.write_bytes(path.read_bytes()[:300])
    index.image_path(5).unlink()
    with caplog.at_level(logging.WARNING):
        first = epoch_of(loader, 0) + epoch_of(loader, 1)
    again = build_train_loader(index, data_config(), STRONG, epochs=5, seed=0)
    assert_same(first, epoch_of(again, 0) + epoch_of(again, 1))
    if workers == 0:
        assert caplog.text.count("004.png") == 2 and caplog.text.count("005.png") == 2  # once per loader
    evaluation = build_eval_loader(index, data_config(), stride=32, batch_size=4)
    caplog.clear()
    batches = list(evaluation)
    assert sum(len(batch) for batch in batches) == 9 and "004.png" in caplog.text and "005.png" in caplog.text
    with pytest.raises(ImageError, match=r"004\.png"):
        load_sample(index, 4, 64, augmenting=True)
    for i in range(9):
        index.image_path(i).unlink(missing_ok=True)
    with pytest.raises(DataError, match="no image"):
        TrainPolicy(index, STRONG, 64, seed=0).build(0, 0)


def test_cache_states_its_size_and_refuses_what_does_not_fit(index, caplog, monkeypatch):
    with caplog.at_level(logging.INFO):
        memory = ImageCache(index, 48, "ram", area=False)
    assert "13 images need 0.1 MiB" in caplog.text and "free" in caplog.text
    for i in range(len(index)):
        assert np.array_equal(memory.get(i), load_sample(index, i, 48, augmenting=True).image)
    on_disk = ImageCache(index, 48, "disk", area=True)
    again = ImageCache(index, 48, "disk", area=True)
    assert np.array_equal(on_disk.get(5), again.get(5)) and np.array_equal(
        again.get(5), load_sample(index, 5, 48, augmenting=False).image
    )
    with pytest.raises(ValueError, match="read-only"):
        memory.get(5)[:] = 0
    before = set(index.directory.parent.glob("*.images-48-area.*"))
    os.utime(index.image_path(5), (1, 1))
    changed = ImageCache(index, 48, "disk", area=True)
    after = set(index.directory.parent.glob("*.images-48-area.*"))
    assert len(before) == len(after) == 1 and before != after and np.array_equal(changed.get(5), again.get(5))
    monkeypatch.setattr("cloverleaf.data.cache._available_memory", lambda: 1000)
    with pytest.raises(ConfigError, match="cache needs"):
        ImageCache(index, 48, "ram", area=False)


def test_collate_without_objects_and_with_crowds(index):
    empty = load_sample(index, 0, 64, augmenting=False)
    batch = collate([replace(empty, image=np.zeros((64, 64, 3), np.uint8))] * 2, TargetOptions(masks=True))
    assert batch.targets.boxes_xyxy.shape == (0, 4) and batch.targets.unpacked().masks.shape == (0, 64, 64)
    assert batch.targets.num_images == 2 and batch.targets.image_index.dtype == torch.int64
    crowd = load_sample(index, 3, 64, augmenting=False)
    assert crowd.crowd.sum() == 1 and len(load_sample(index, 3, 64, augmenting=True)) == 2
    mixed = collate([crowd, replace(crowd, identities=None), crowd])
    assert mixed.targets.image_index.tolist() == [0, 0, 1, 1, 2, 2]
    assert mixed.targets.identities.tolist() == [0, 1, -1, -1, 0, 1]


def test_workers_share_the_cpus(monkeypatch):
    monkeypatch.setattr("cloverleaf.data.loader.usable_cpus", lambda: 8)
    assert resolve_workers(3) == 3 and resolve_workers(-1) == 8
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert resolve_workers(-1) == 2
