"""The embedded dataset: the same every time, what it promises, and safe with other people's folders."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cloverleaf.data.procedural import MARKER, SHAPES, make_shapes
from cloverleaf.data.procedural.annotate import run_lengths, tight_box
from cloverleaf.data.procedural.individuals import make_individuals
from cloverleaf.data.procedural.sprite import Pose, draw_sprite
from cloverleaf.errors import ConfigError, DataError

SPLITS = ("train", "val", "test")
TINY = {"images": 8, "size": 96, "splits": {"train": 4, "val": 2, "test": 2}}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("shapes") / "made", images=160)


def documents(folder: Path) -> dict[str, dict[str, Any]]:
    return {split: json.loads((folder / "annotations" / f"{split}.json").read_text()) for split in SPLITS}


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.*"))}


def decode(rle: dict[str, Any]) -> np.ndarray:
    values = np.arange(len(rle["counts"])) % 2
    height, width = rle["size"]
    return np.repeat(values, rle["counts"]).reshape(width, height).T.astype(bool)


def test_same_bytes_from_the_same_seed_whatever_the_workers(tmp_path: Path) -> None:
    one = digests(make_shapes(tmp_path / "one", seed=3, workers=1, **TINY))
    assert one == digests(make_shapes(tmp_path / "three", seed=3, workers=3, **TINY))
    other = digests(make_shapes(tmp_path / "other", seed=4, workers=1, **TINY))
    assert all(one[name] != other[name] for name in one if name.endswith(".jpg"))


def test_coco_files_agree_with_each_other_and_with_the_pictures(dataset: Path) -> None:
    files = documents(dataset)
    assert {split: len(d["images"]) for split, d in files.items()} == {"train": 120, "val": 20, "test": 20}
    names = [image["file_name"] for d in files.values() for image in d["images"]]
    assert len(set(names)) == 160
    assert sorted(p.name for p in (dataset / "images").iterdir()) == sorted(names)
    for d in files.values():
        assert [category["name"] for category in d["categories"]] == [shape.name for shape in SHAPES]
        images = {image["id"] for image in d["images"]}
        assert {a["image_id"] for a in d["annotations"]} <= images
        assert len({a["id"] for a in d["annotations"]}) == len(d["annotations"])
    assert cv2.imread(str(dataset / "images" / names[-1])).shape == (320, 320, 3)


def test_masks_boxes_and_areas_say_the_same(dataset: Path) -> None:
    for d in documents(dataset).values():
        taken: dict[int, np.ndarray] = defaultdict(lambda: np.zeros((320, 320), bool))
        for a in d["annotations"]:
            mask = decode(a["segmentation"])
            assert mask.shape == (320, 320)
            assert (int(mask.sum()), tight_box(mask)) == (a["area"], a["bbox"])
            x, y, w, h = a["bbox"]
            assert min(x, y) >= 0 and x + w <= 320 and y + h <= 320 and a["area"] >= 14
            assert not (taken[a["image_id"]] & mask).any(), "a pixel belongs to two objects"
            taken[a["image_id"]] |= mask


def test_rle_is_read_alike_by_pycocotools(dataset: Path) -> None:
    masks = pytest.importorskip("pycocotools.mask")
    rle = documents(dataset)["val"]["annotations"][0]["segmentation"]
    np.testing.assert_array_equal(masks.decode(masks.frPyObjects(rle, *rle["size"])).astype(bool), decode(rle))


def test_run_lengths_begin_with_zeros() -> None:
    mask = np.array([[True, False], [True, True]])
    assert run_lengths(mask) == {"size": [2, 2], "counts": [0, 2, 1, 1]}


def test_set_is_not_trivial(dataset: Path) -> None:
    annotations = [a for d in documents(dataset).values() for a in d["annotations"]]
    areas = np.array([a["area"] for a in annotations])
    sides = np.array([max(a["bbox"][2:]) for a in annotations])
    assert len(areas) > 160 * 7
    assert (areas < 32**2).mean() >= 0.4
    assert (areas >= 32**2).mean() >= 0.25
    assert (areas >= 96**2).mean() >= 0.02
    assert sides.min() >= 4 and sides.min() <= 8 and 150 <= sides.max() <= 202
    counts = Counter(a["category_id"] for a in annotations)
    assert len(counts) == len(SHAPES) >= 12
    assert max(counts.values()) < 2.5 * min(counts.values())


def test_individuals_return_in_other_images_and_some_are_new_to_the_held_out_splits(dataset: Path) -> None:
    where: dict[int, set[int]] = defaultdict(set)
    in_split: dict[str, set[int]] = {}
    for split, d in documents(dataset).items():
        in_split[split] = {a["identity"] for a in d["annotations"]}
        for a in d["annotations"]:
            where[a["identity"]].add(a["image_id"])
            assert a["category_id"] == a["identity"] // 6 + 1
    assert len(where) > 90
    assert np.mean([len(images) >= 3 for images in where.values()]) > 0.95
    held_out = in_split["val"] | in_split["test"]
    assert held_out & in_split["train"] and held_out - in_split["train"] and in_split["train"] - held_out


def test_tags_describe_the_picture(dataset: Path) -> None:
    for d in documents(dataset).values():
        names = {tag["id"]: tag["name"] for tag in d["tags"]}
        counts = Counter(a["image_id"] for a in d["annotations"])
        for image in d["images"]:
            tags = {names[tag] for tag in image["tags"]}
            assert sum(tag.startswith("background-") for tag in tags) == 1
            assert sum(tag.startswith("colour-") for tag in tags) == 1
            assert ("crowded" in tags) == (counts[image["id"]] >= 12)
            assert ("sparse" in tags) == (1 <= counts[image["id"]] <= 4)
            assert ("empty" in tags) == (counts[image["id"]] == 0)


@pytest.mark.parametrize("label", range(len(SHAPES)), ids=[shape.name for shape in SHAPES])
def test_sprite_covers_what_its_outline_covers(label: int) -> None:
    """Pixel coverage summed = area of the polygon; so no half-pixel shift, no fat edge, at small and at large sizes."""
    person = make_individuals(0, 1)[label]
    for size in (12.0, 40.0, 150.0):
        sprite = draw_sprite(person, Pose(size, 0.0, 1.0, (0.0, 0.0)), np.array([0.3, 0.7]))
        rings = [size * ring.astype(np.float64) for ring in SHAPES[label].rings]
        areas = [abs(np.sum(r[:, 0] * np.roll(r[:, 1], -1) - np.roll(r[:, 0], -1) * r[:, 1])) / 2 for r in rings]
        exact = areas[0] - sum(areas[1:])
        perimeter = sum(np.linalg.norm(r - np.roll(r, -1, 0), axis=1).sum() for r in rings)
        assert -0.05 * perimeter < sprite.alpha.sum() - exact < 0.4 * perimeter  # at most 0.4 px too wide
        assert abs(max(sprite.alpha.shape) - size) <= 2


def test_an_existing_dataset_is_kept_and_one_with_other_parameters_replaced(tmp_path: Path) -> None:
    made = make_shapes(tmp_path / "set", **TINY)
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*.*")}
    make_shapes(made, **TINY)
    assert before == {path: path.stat().st_mtime_ns for path in made.rglob("*.*")}

    (made / "images" / "holiday.jpg").write_bytes(b"not ours")
    make_shapes(made, images=3, size=64, splits={"train": 2, "val": 1})
    ours = {"000001.jpg", "000002.jpg", "000003.jpg"}
    assert {path.name for path in (made / "images").iterdir()} == ours | {"holiday.jpg"}
    assert {path.stem for path in (made / "annotations").iterdir()} == {"train", "val"}

    marker = json.loads((made / MARKER).read_text())
    (made / MARKER).write_text(json.dumps({**marker, "complete": False}))
    (made / "images" / "000002.jpg").unlink()
    make_shapes(made, images=3, size=64, splits={"train": 2, "val": 1})
    assert (made / "images" / "000002.jpg").is_file(), "an unfinished dataset was taken for a finished one"


def test_a_folder_of_someone_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        make_shapes(tmp_path, **TINY)
    with pytest.raises(DataError, match="is a file"):
        make_shapes(tmp_path / "notes.txt", **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "arguments",
    [
        {"splits": {"train": 5, "val": 2}},
        {"splits": {"train": 0.5, "val": 0.4}},
        {"splits": {"../x": 1.0}},
        {"size": 32},
    ],
    ids=["counts", "shares", "name", "size"],
)
def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make_shapes(tmp_path / "set", **{"images": 8, **arguments})
    assert not (tmp_path / "set").exists()
