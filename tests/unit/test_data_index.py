"""The index: faulty boxes, its cache, and what it costs to hand it to another process."""

from __future__ import annotations

import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cloverleaf.data import index_store
from cloverleaf.data.index import DetectionIndex
from cloverleaf.data.source import open_index
from cloverleaf.errors import DataError
from tiny_datasets import coco_content, write_coco, write_yolo


def with_boxes(root: Path, boxes: list[list[float]]) -> Path:
    """Replace the boxes of image a (60 wide, 40 high)."""
    write_coco(root)
    content = coco_content("train")
    content["annotations"] = [
        {"id": k + 1, "image_id": ord("a"), "category_id": 1, "bbox": box} for k, box in enumerate(boxes)
    ]
    (root / "annotations" / "train.json").write_text(json.dumps(content))
    return root


def test_faulty_boxes_are_cut_or_left_out_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nan = float("nan")
    boxes = [
        [5, 5, 10, 10],
        [-4, 30, 20, 20],
        [5, 5, 0, 10],
        [5, 5, -3, 4],
        [nan, 1, 2, 3],
        [70, 5, 10, 10],
        [0, 0, 60.5, 9],
    ]
    root = with_boxes(tmp_path / "set", boxes)
    index = open_index(root, "train", cache_dir=tmp_path / "cache")
    np.testing.assert_allclose(index.objects(0).boxes_xyxy, [[5, 5, 15, 15], [0, 30, 16, 40], [0, 0, 60, 9]])
    np.testing.assert_allclose(index.objects(0).areas, [100, 160, 540])
    assert index.removed == {
        "boxes cut at the image border": 1, "boxes without size or not finite": 3, "boxes outside the image": 1,
    }  # fmt: skip
    assert len(caplog.records) == 1
    assert "cloverleaf data check" in caplog.text


def test_all_boxes_faulty_is_refused(tmp_path: Path) -> None:
    root = with_boxes(tmp_path / "set", [[5, 5, 0, 0], [6, 6, 0, 0]])
    with pytest.raises(DataError, match="no usable box: all 2 are boxes without size"):
        open_index(root, "train", cache_dir=tmp_path / "cache")


def test_missing_images_are_left_out_and_all_missing_is_refused(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    (root / "images" / "c.png").unlink()
    index = open_index(root, "train", cache_dir=tmp_path / "cache")
    assert len(index) == 1 and index.removed == {"missing images": 1}
    (root / "images" / "a.png").unlink()
    with pytest.raises(DataError, match="no usable image: 2 missing images"):
        open_index(root, "train", cache_dir=tmp_path / "cache")


def test_cache_is_used_and_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_yolo(tmp_path / "set")
    first = open_index(root, "train")
    assert first.directory.parent == root / index_store.FOLDER
    again = open_index(root, "train")
    assert again.directory == first.directory
    assert len(list(first.directory.parent.iterdir())) == 1
    labels = root / "labels" / "train" / "a.txt"
    labels.write_text("1 0.5 0.5 0.5 0.5\n")
    os.utime(labels, ns=(1, 1))
    renewed = open_index(root, "train")
    assert renewed.fingerprint != first.fingerprint
    assert renewed.labels.tolist() == [1]
    assert first.labels.tolist() == [0, 2]  # still open
    (renewed.directory / "labels.npy").write_bytes(b"torn")
    assert open_index(root, "train").labels.tolist() == [1]


def test_old_versions_are_forgotten_with_their_image_caches(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set")
    labels = root / "labels" / "train" / "a.txt"
    made = []
    for number in range(5):
        labels.write_text("1 0.5 0.5 0.5 0.5\n" * (number + 1))
        made.append(open_index(root, "train").directory)
        os.utime(made[-1], (number, number))
        made[-1].with_name(f"{made[-1].name}.images-320").touch()
    kept = {entry.name for entry in made[0].parent.iterdir()}
    assert kept == {name for entry in made[-3:] for name in (entry.name, f"{entry.name}.images-320")}


def test_datasets_that_cannot_be_written_use_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_coco(tmp_path / "set")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (root / index_store.FOLDER).write_text("a file where the folder would be")
    assert open_index(root, "train").directory.is_relative_to(tmp_path / "home")


def test_many_writers_at_once(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: open_index(root, "train", cache_dir=tmp_path / "cache"), range(16)))
    assert len({index.directory for index in found}) == 1
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == [found[0].directory.name]


def test_pickles_as_its_path(tmp_path: Path) -> None:
    index = open_index(write_coco(tmp_path / "set"), "train", cache_dir=tmp_path / "cache")
    packed = pickle.dumps(index)
    assert len(packed) < 500
    copy = pickle.loads(packed)
    assert isinstance(copy, DetectionIndex)
    np.testing.assert_array_equal(copy.boxes_xyxy, index.boxes_xyxy)
    assert isinstance(index.boxes_xyxy.base.base, np.memmap) or isinstance(index.boxes_xyxy.base, np.memmap)


def test_to_coco_is_the_file(tmp_path: Path) -> None:
    truth = open_index(write_coco(tmp_path / "set"), "train", cache_dir=tmp_path / "cache").to_coco()
    content = coco_content("train")
    assert truth["annotations"] == content["annotations"]
    assert truth["categories"] == content["categories"]
    assert [image["id"] for image in truth["images"]] == [ord("a"), ord("c")]
