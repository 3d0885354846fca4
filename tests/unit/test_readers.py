"""Readers: the same records from every format and layout, and clear refusals of what is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cloverleaf.data.records import RunLength
from cloverleaf.data.source import list_splits, open_index, open_split
from cloverleaf.errors import DataError
from tiny_datasets import (
    NAMES,
    OBJECTS,
    SIZES_HW,
    SPLITS,
    WRITERS,
    coco_content,
    write_coco,
    write_images,
    write_voc,
    write_yolo,
)


def assert_is_the_dataset(source: Path, cache: Path, splits: dict[str, tuple[str, ...]] = SPLITS) -> None:
    assert list_splits(source) == list(splits)
    for split, stems in splits.items():
        index = open_index(source, split, cache_dir=cache)
        assert index.names == NAMES
        assert index.category_ids == (1, 2, 3)
        assert [index.image_path(i).stem for i in range(len(index))] == list(stems)
        for i, stem in enumerate(stems):
            objects = index.objects(i)
            expected = np.array(OBJECTS[stem], dtype=np.float64).reshape(-1, 5)
            np.testing.assert_allclose(objects.boxes_xyxy, expected[:, 1:], atol=1e-9)
            assert objects.labels.tolist() == expected[:, 0].tolist()
            assert index.size_hw(i) == SIZES_HW[stem]
            assert index.image_path(i).is_file()


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_index(name: str, tmp_path: Path) -> None:
    assert_is_the_dataset(WRITERS[name](tmp_path / "set"), tmp_path / "cache")


def coco_json(root: Path) -> Path:
    return write_coco(root) / "annotations" / "val.json"


def coco_instances(root: Path) -> Path:
    write_coco(root)
    for split in SPLITS:
        old = root / "annotations" / f"{split}.json"
        old.rename(old.with_name(f"instances_{split}2017.json"))
        (root / "annotations" / f"captions_{split}2017.json").write_text(
            '{"info": {}, "images": [], "annotations": []}'
        )
    return root


def coco_yaml(root: Path) -> Path:
    write_coco(root)
    (root / "images").rename(root / "pictures")
    text = (
        "path: .\ntrain: annotations/train.json\nval: annotations/val.json\nimages: pictures\nnames: [ant, bee, cat]\n"
    )
    (root / "set.yaml").write_text(text)
    return root / "set.yaml"


def coco_exported(root: Path) -> Path:
    for split, folder in (("train", "train"), ("val", "valid")):
        write_images(root / folder, SPLITS[split])
        (root / folder / "_annotations.coco.json").write_text(json.dumps(coco_content(split)))
    return root


def yolo_mapping(root: Path) -> Path:
    return write_yolo(root, "names:\n  0: ant\n  1: bee\n  2: cat\nnc: 3") / "data.yaml"


def yolo_exported(root: Path) -> Path:
    """`train/images` and `train/labels`, named from a place that is not here (`../train/images`)."""
    write_yolo(root)
    for split in SPLITS:
        folder = "valid" if split == "val" else split
        (root / folder).mkdir()
        (root / "images" / split).rename(root / folder / "images")
        (root / "labels" / split).rename(root / folder / "labels")
    (root / "images").rmdir()
    text = "train: ../train/images\nval: ../valid/images\nnc: 3\nnames: ['ant', 'bee', 'cat']\n"
    (root / "data.yaml").write_text(text)
    return root


def yolo_lists(root: Path) -> Path:
    write_yolo(root)
    for split, stems in SPLITS.items():
        (root / f"{split}.txt").write_text("".join(f"./images/{split}/{stem}.png\n" for stem in stems))
    (root / "data.yaml").write_text("train: [train.txt]\nval: val.txt\nnames: [ant, bee, cat]\n")
    return root


def yolo_without_yaml(root: Path) -> Path:
    write_yolo(root)
    (root / "data.yaml").unlink()
    (root / "classes.txt").write_text("ant\nbee\ncat\n")
    return root


def voc_folders(root: Path) -> Path:
    write_voc(root)
    for split, stems in SPLITS.items():
        (root / split).mkdir()
        for stem in stems:
            (root / "Annotations" / f"{stem}.xml").rename(root / split / f"{stem}.xml")
            (root / "JPEGImages" / f"{stem}.png").rename(root / split / f"{stem}.png")
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).rmdir()
    return root


def voc_xml_folder(root: Path) -> Path:
    return write_voc(root) / "Annotations"


LAYOUTS: list[Callable[[Path], Path]] = [
    coco_json, coco_instances, coco_yaml, coco_exported, yolo_mapping, yolo_exported, yolo_lists, yolo_without_yaml,
    voc_folders, voc_xml_folder,
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_layouts_are_recognised(layout: Callable[[Path], Path], tmp_path: Path) -> None:
    assert_is_the_dataset(layout(tmp_path / "set"), tmp_path / "cache")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


BROKEN = {
    "json cut off": (
        "coco",
        "annotations/train.json",
        lambda p: p.write_text(p.read_text()[:90]),
        r"train\.json:\d+: not valid JSON",
    ),
    "json list": ("coco", "annotations/train.json", lambda p: p.write_text('[{"images": 1}]'), "not a COCO dataset"),
    "no categories": (
        "coco",
        "annotations/train.json",
        lambda p: edit(p, '"categories"', '"kinds"'),
        "no list `categories`",
    ),
    "category unknown": (
        "coco",
        "annotations/train.json",
        lambda p: edit(p, '"category_id": 3', '"category_id": 9'),
        r"train\.json:\d+ \(annotation 971\): category_id 9",
    ),
    "bbox of text": (
        "coco",
        "annotations/train.json",
        lambda p: edit(p, "3.25", '"3.25"'),
        r"annotation 970\): bbox .* is not four numbers",
    ),
    "image id twice": (
        "coco",
        "annotations/train.json",
        lambda p: edit(p, '"id": 99', '"id": 97'),
        "image id 97 is used twice",
    ),
    "class out of range": (
        "yolo",
        "labels/train/a.txt",
        lambda p: edit(p, "\n2 ", "\n3 "),
        r"a\.txt:2: class 3 is not one of 0 to 2",
    ),
    "class not whole": ("yolo", "labels/train/a.txt", lambda p: edit(p, "\n2 ", "\n1.5 "), r"a\.txt:2: class 1\.5"),
    "row of words": (
        "yolo",
        "labels/train/a.txt",
        lambda p: p.write_text("0 .5 .5 .1 .1\nant 1 2 3 4\n"),
        r"a\.txt:2: not all numbers",
    ),
    "row too short": ("yolo", "labels/train/a.txt", lambda p: p.write_text("0 .5 .5 .1\n"), r"a\.txt:1: 4 numbers"),
    "yaml broken": (
        "yolo",
        "data.yaml",
        lambda p: p.write_text("train: images\nnames: [a, b\nval: x: y\n"),
        r"data\.yaml:\d+: not valid YAML",
    ),
    "yaml without names": ("yolo", "data.yaml", lambda p: edit(p, "names:", "labels:"), "has no `names`"),
    "nc differs": (
        "yolo",
        "data.yaml",
        lambda p: p.write_text(p.read_text() + "nc: 4\n"),
        "`nc` is 4 and there are 3 names",
    ),
    "names with a gap": (
        "yolo",
        "data.yaml",
        lambda p: edit(p, "[ant, bee, cat]", "{0: ant, 2: cat}"),
        "numbered from 0 without gaps",
    ),
    "folder missing": (
        "yolo",
        "data.yaml",
        lambda p: edit(p, "images/train", "images/trian"),
        r"`train: images/trian` does not exist",
    ),
    "no labels": ("yolo", "labels/train/a.txt", lambda p: p.unlink(), "has no label files"),
    "xml cut off": (
        "voc",
        "Annotations/a.xml",
        lambda p: p.write_text(p.read_text()[:-40]),
        r"a\.xml:\d+: not valid XML",
    ),
    "xml bomb": (
        "voc",
        "Annotations/a.xml",
        lambda p: p.write_text('<!DOCTYPE x [<!ENTITY e "e">]><annotation>&e;</annotation>'),
        "entities",
    ),
    "box of words": (
        "voc",
        "Annotations/a.xml",
        lambda p: edit(p, "<xmin>10.0", "<xmin>ten"),
        r"a\.xml:8 \(object 2\): the box cannot be read",
    ),
    "xml not there": ("voc", "Annotations/a.xml", lambda p: p.unlink(), "listed in the split"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_labels_are_refused_with_file_and_line(case: str, tmp_path: Path) -> None:
    name, file, damage, message = BROKEN[case]
    root = WRITERS[name](tmp_path / "set")
    damage(root / file)
    with pytest.raises(DataError, match=message):
        open_index(root, "train", cache_dir=tmp_path / "cache")


def test_sources_that_are_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_index(tmp_path / "absent", "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"looked for COCO .* YOLO .* Pascal VOC .* holds nothing"):
        open_index(tmp_path / "empty", "train")
    root = write_coco(tmp_path / "set")
    with pytest.raises(DataError, match="no split 'tset': it has train, val"):
        open_index(root, "tset")
    (root / "annotations" / "mine_train.json").write_text((root / "annotations" / "train.json").read_text())
    (root / "annotations" / "train.json").rename(root / "annotations" / "yours_train.json")
    with pytest.raises(DataError, match="several annotation files for split 'train'"):
        list_splits(root)


def test_names_in_yaml_must_agree_with_coco(tmp_path: Path) -> None:
    source = coco_yaml(tmp_path / "set")
    edit(source, "ant, bee", "bee, ant")
    with pytest.raises(DataError, match="names in the YAML and in"):
        open_index(source, "train", cache_dir=tmp_path / "cache")


def test_folder_with_two_formats_reads_coco_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_coco(tmp_path / "set")
    write_voc(tmp_path / "other")
    (tmp_path / "other" / "Annotations").rename(root / "voc")
    assert open_split(root, "train").format == "coco"
    assert "also holds Pascal VOC labels; reading its COCO annotations" in caplog.text


def test_coco_extras_are_kept(tmp_path: Path) -> None:
    """Polygons, both kinds of run lengths, crowds, identities and tags."""
    root = write_coco(tmp_path / "set")
    path = root / "annotations" / "train.json"
    content = json.loads(path.read_text())
    content["tags"] = [{"id": 5, "name": "dark"}, {"id": 9, "name": "noisy"}]
    content["images"][0]["tags"] = [9]
    polygon, mask = content["annotations"]
    polygon |= {"segmentation": [[3.25, 4.5, 20, 4.5, 20, 30.75]], "identity": 17, "area": 111.0}
    # One pixel column x = 10, rows 5 to 8, and one hole-free block: counts run down the columns.
    mask |= {"segmentation": {"size": [40, 60], "counts": [405, 4, 36, 4, 40 * 60 - 449]}, "iscrowd": 1}
    path.write_text(json.dumps(content))
    index = open_index(root, "train", cache_dir=tmp_path / "cache")
    objects = index.objects(0)
    assert objects.crowd.tolist() == [False, True]
    assert objects.areas[0] == 111
    assert objects.identities is not None and objects.identities.tolist() == [17, -1]
    assert objects.polygons is not None
    np.testing.assert_array_equal(objects.polygons[0][0], [[3.25, 4.5], [20, 4.5], [20, 30.75]])
    outline = objects.polygons[1][0]
    np.testing.assert_array_equal([outline.min(0), outline.max(0)], [[10, 5], [12, 9]])
    tags = index.tags(0)
    assert tags is not None and tags.tolist() == [0, 1]
    truth = index.to_coco()
    assert truth["images"][0]["tags"] == [9] and truth["tags"] == content["tags"]
    assert truth["annotations"][0]["segmentation"] == polygon["segmentation"]
    assert truth["annotations"][1]["segmentation"]["size"] == [40, 60]
    from faster_coco_eval.core import mask as coco_mask

    pixels = coco_mask.decode(truth["annotations"][1]["segmentation"])
    assert pixels.sum() == 8 and pixels[5:9, 10:12].all()
    segmentation = next(open_split(root, "train").open().images).objects[1].segmentation
    assert isinstance(segmentation, RunLength)


def test_yolo_polygon_rows(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set")
    (root / "labels" / "train" / "a.txt").write_text("1 0.1 0.2 0.5 0.2 0.5 0.8\n\n0 0.5 0.5 0.1 0.1\n")
    objects = open_index(root, "train", cache_dir=tmp_path / "cache").objects(0)
    np.testing.assert_allclose(objects.boxes_xyxy, [[6, 8, 30, 32], [27, 18, 33, 22]])
    assert objects.polygons is not None and objects.polygons[1] == ()
    np.testing.assert_allclose(objects.polygons[0][0], [[6, 8], [30, 8], [30, 32]], rtol=1e-6)


@pytest.mark.shared_data
def test_bccd_is_the_same_as_coco_and_as_voc(shared_data: Path, tmp_path: Path) -> None:
    for split, count in (("train", 2804), ("val", 1137), ("test", 945)):
        coco = open_index(shared_data / "bccd", split, cache_dir=tmp_path)
        voc = open_index(shared_data / "bccd" / "voc", split, cache_dir=tmp_path)
        assert len(coco.labels) == len(voc.labels) == count
        assert [coco.image_path(i).name for i in range(len(coco))] == [voc.image_path(i).name for i in range(len(voc))]
        np.testing.assert_array_equal(coco.boxes_xyxy, voc.boxes_xyxy)
        assert [coco.names[k] for k in coco.labels] == [voc.names[k] for k in voc.labels]


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "images", "objects"), [("deeppcb", 100, 706), ("nuclei", 41, 1917)])
def test_real_folders_open(name: str, images: int, objects: int, shared_data: Path, tmp_path: Path) -> None:
    index = open_index(shared_data / name, "val", cache_dir=tmp_path)
    assert (len(index), len(index.labels)) == (images, objects)
    assert index.has_polygons == (name == "nuclei")
