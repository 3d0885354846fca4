"""Conversion: there and back without loss, and a list of what a format cannot carry."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cloverleaf.cli.data import app
from cloverleaf.data.convert import convert_dataset
from cloverleaf.data.records import ImageRecord, ObjectRecord, RunLength
from cloverleaf.data.source import list_splits, open_split
from cloverleaf.errors import DataError
from tiny_datasets import SPLITS, WRITERS, write_coco


def rich_coco(root: Path) -> Path:
    """A COCO set with everything the records know, ids with gaps and names that need escaping."""
    write_coco(root)
    path = root / "annotations" / "train.json"
    content = json.loads(path.read_text())
    content["tags"] = [{"id": 4, "name": "dark"}, {"id": 8, "name": "noisy & <old>"}]
    content["images"][0]["tags"] = [4, 8]
    first, second = content["annotations"]
    first |= {"segmentation": [[3.25, 4.5, 20, 4.5, 20, 30.75], [5, 5, 6, 5, 6, 7.125]], "identity": 17, "area": 99.5}
    second |= {"segmentation": {"size": [40, 60], "counts": [405, 4, 36, 4, 1951]}, "iscrowd": 1, "area": 8}
    third = {"id": 5, "image_id": ord("c"), "category_id": 2, "bbox": [1 / 3, 2 / 3, 10.1, 20.2], "area": 204.02}
    content["annotations"].append(third | {"iscrowd": 0, "difficult": 1, "truncated": 1})
    for split in SPLITS:
        file = root / "annotations" / f"{split}.json"
        own = content if split == "train" else json.loads(file.read_text())
        own["tags"] = content["tags"]
        own["categories"][1]["name"] = 'bee "&" <é>'
        file.write_text(json.dumps(own))
    return root


def records(source: Path, split: str) -> dict[str, ImageRecord]:
    return {record.path.stem: record for record in open_split(source, split).open().images}


def assert_same_boxes(one: Path, two: Path) -> None:
    assert list_splits(one) == list_splits(two)
    for split in list_splits(one):
        assert open_split(one, split).open().header.names == open_split(two, split).open().header.names
        first, second = records(one, split), records(two, split)
        assert first.keys() == second.keys()
        for stem in first:
            assert [found.label for found in first[stem].objects] == [found.label for found in second[stem].objects]
            boxes = [np.array([found.box_xyxy for found in side[stem].objects]) for side in (first, second)]
            np.testing.assert_allclose(boxes[0], boxes[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("middle", WRITERS)
@pytest.mark.parametrize("start", WRITERS)
def test_there_and_back(start: str, middle: str, tmp_path: Path) -> None:
    source = WRITERS[start](tmp_path / "set")
    there = convert_dataset(source, middle, tmp_path / "there")
    assert there.lost == {}
    back = convert_dataset(there.path, start, tmp_path / "back", copy_images=False)
    assert back.lost == {}
    assert_same_boxes(source, there.path)
    assert_same_boxes(source, back.path)
    assert open_split(there.path, "train").format == middle


@pytest.mark.parametrize("middle", ["voc", "coco"])
def test_everything_survives(middle: str, tmp_path: Path) -> None:
    source = rich_coco(tmp_path / "set")
    there = convert_dataset(source, middle, tmp_path / "there")
    assert there.lost == {}
    back = convert_dataset(there.path, "coco", tmp_path / "back")
    assert_same_boxes(source, back.path)
    for stem, image in records(source, "train").items():
        other = records(back.path, "train")[stem]
        assert (image.image_id, image.tags, image.size_hw) == (other.image_id, other.tags, other.size_hw)
        for one, two in zip(image.objects, other.objects, strict=True):
            assert_equal_details(one, two)


def assert_equal_details(one: ObjectRecord, two: ObjectRecord) -> None:
    for key in ("crowd", "difficult", "truncated", "identity", "annotation_id"):
        assert getattr(one, key) == getattr(two, key), key
    assert one.area == pytest.approx(two.area)
    if isinstance(one.segmentation, tuple):
        assert isinstance(two.segmentation, tuple)
        for ring, other in zip(one.segmentation, two.segmentation, strict=True):
            np.testing.assert_array_equal(ring, other)
    else:
        assert one.segmentation == two.segmentation
        assert one.segmentation is None or isinstance(one.segmentation, RunLength)


def test_yolo_says_what_it_cannot_carry(tmp_path: Path) -> None:
    report = convert_dataset(rich_coco(tmp_path / "set"), "yolo", tmp_path / "boxes")
    kinds = {what.split(" (")[0]: count for what, count in report.lost.items()}
    assert kinds == {
        "image tags": 2, "crowd regions": 1, "difficult flags": 1, "truncated flags": 1, "identities": 1,
        "mask areas": 1, "outlines": 1,
    }  # fmt: skip
    outlined = convert_dataset(tmp_path / "set", "yolo", tmp_path / "outlines", segments=True)
    assert "outlines of several parts (joined into one)" in outlined.lost
    found = records(outlined.path, "train")["a"].objects[0]
    assert isinstance(found.segmentation, tuple) and len(found.segmentation[0]) == 9
    np.testing.assert_allclose(found.box_xyxy, [3.25, 4.5, 20, 30.75])


def test_yolo_outlines_survive_by_default(tmp_path: Path) -> None:
    source = WRITERS["yolo"](tmp_path / "set")
    for split, stem in (("train", "a"), ("val", "b")):
        (source / "labels" / split / f"{stem}.txt").write_text("1 0.1 0.2 0.5 0.2 0.5 0.8\n")
    coco = convert_dataset(source, "coco", tmp_path / "coco")
    back = convert_dataset(coco.path, "yolo", tmp_path / "back")
    assert back.lost == {}
    text = (tmp_path / "back" / "labels" / "train" / "a.txt").read_text().split()
    np.testing.assert_allclose([float(value) for value in text], [1, 0.1, 0.2, 0.5, 0.2, 0.5, 0.8], atol=1e-12)


def test_category_ids_with_gaps(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "set")
    for path in (source / "annotations").glob("*.json"):
        path.write_text(
            path.read_text().replace('"category_id": 3', '"category_id": 90').replace('"id": 3,', '"id": 90,')
        )
    yolo = convert_dataset(source, "yolo", tmp_path / "yolo")
    back = convert_dataset(yolo.path, "coco", tmp_path / "back")
    assert open_split(back.path, "train").open().header.category_ids == (1, 2, 90)
    assert "category ids" in next(iter(convert_dataset(source, "voc", tmp_path / "voc").lost))


def test_images_of_one_name_do_not_collide(tmp_path: Path) -> None:
    source = WRITERS["yolo"](tmp_path / "set")
    for kind, suffix in (("images", "png"), ("labels", "txt")):
        (source / kind / "val" / f"b.{suffix}").rename(source / kind / "val" / f"a.{suffix}")
    report = convert_dataset(source, "coco", tmp_path / "coco")
    assert sorted(path.name for path in (tmp_path / "coco" / "images").iterdir()) == ["a.png", "c.png", "val_a.png"]
    assert records(report.path, "val")["val_a"].objects[0].box_xyxy == pytest.approx((0, 0, 30, 50))


def test_command_and_refusals(tmp_path: Path) -> None:
    source = write_coco(tmp_path / "set")
    arguments = ["convert", str(source), "--to", "voc", "--output", str(tmp_path / "out"), "--link"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "train: 2 images, 2 objects" in result.output
    assert (tmp_path / "out" / "JPEGImages" / "a.png").is_symlink()
    with pytest.raises(DataError, match="is not empty"):
        convert_dataset(source, "voc", tmp_path / "out")
    path = source / "annotations" / "val.json"
    path.write_text(path.read_text().replace('"ant"', '"wasp"'))
    with pytest.raises(DataError, match="different classes"):
        convert_dataset(source, "voc", tmp_path / "new")
