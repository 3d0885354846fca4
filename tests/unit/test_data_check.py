"""The linter: each fault is found once, at its place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cloverleaf.cli.data import app
from cloverleaf.data.check import check_dataset
from tiny_datasets import coco_content, write_coco, write_voc, write_yolo


def codes(source: Path) -> list[str]:
    return sorted(found.code for found in check_dataset(source, workers=1).findings if found.severity != "note")


def test_a_good_dataset_passes(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    report = check_dataset(root)
    assert report.verdict == "warnings"  # class bee is not in train
    assert [found.code for found in report.findings] == ["image-without-objects", "class-without-objects"]
    assert {name: (count.images, count.objects) for name, count in report.splits.items()} == {
        "train": (2, 2),
        "val": (1, 1),
    }


BOXES = {
    "box-zero-size": [10, 10, 0, 5],
    "box-negative-size": [10, 10, 5, -5],
    "box-not-finite": [10, float("nan"), 5, 5],
    "box-outside": [61, 10, 5, 5],
    "box-beyond-border": [50, 10, 15, 5],
    "box-duplicate": [3.25, 4.5, 16.75, 26.25],
    "box-near-duplicate": [3.25, 4.5, 16.75, 25],
    "broken-box": [1, 2, 3],
}


@pytest.mark.parametrize("code", BOXES)
def test_faulty_boxes(code: str, tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    path = root / "annotations" / "train.json"
    content = coco_content("train")
    content["annotations"].append({"id": 1234, "image_id": ord("a"), "category_id": 1, "bbox": BOXES[code]})
    path.write_text(json.dumps(content, indent=1))
    found = check_dataset(root).of(code)
    assert len(found) == 1
    assert found[0].item == "annotation 1234" and found[0].file == str(path)
    assert '"id": 1234' in path.read_text().splitlines()[(found[0].line or 0) - 1]


def test_faults_of_rows_have_their_line(tmp_path: Path) -> None:
    root = write_yolo(tmp_path / "set")
    labels = root / "labels" / "train" / "a.txt"
    labels.write_text("0 .5 .5 .1 .1\n7 .5 .5 .1 .1\n0 0.2 x .1 .1\n1 .5 .5 0 .1\n0 .5 .5 .1 .1\n")
    found = {finding.line: finding.code for finding in check_dataset(root).findings if finding.file == str(labels)}
    assert found == {2: "unknown-class", 3: "broken-row", 4: "box-zero-size", 5: "box-duplicate"}
    voc = write_voc(tmp_path / "voc")
    text = (voc / "Annotations" / "a.xml").read_text()
    (voc / "Annotations" / "a.xml").write_text(text.replace("<xmax>55.5", "<xmax>10.0"))
    (finding,) = check_dataset(voc).of("box-zero-size")
    assert (finding.line, finding.item) == (8, "object 2")


def save_truncated(path: Path, image: Image.Image) -> None:
    image.resize((200, 200)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:-200])


def save_rotated(path: Path, image: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, "JPEG", exif=exif)


IMAGES = {
    "image-missing": lambda path, image: path.unlink(),
    "image-unreadable": save_truncated,
    "image-cmyk": lambda path, image: image.convert("CMYK").save(path, "JPEG"),
    "image-16-bit": lambda path, image: Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60)).save(
        path, "PNG"
    ),
    "image-exif-rotated": save_rotated,
    "image-size-differs": lambda path, image: image.resize((61, 40)).save(path, "PNG"),
}


@pytest.mark.parametrize("code", IMAGES)
def test_faulty_images(code: str, tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    path = root / "images" / "a.png"
    IMAGES[code](path, Image.open(path).copy())
    report = check_dataset(root, ["train"], workers=2)
    assert len(report.of(code)) == 1
    assert "a.png" in report.of(code)[0].place + report.of(code)[0].message
    if code == "image-exif-rotated":  # 60 x 40 stored is 40 x 60 upright
        assert "turned by its EXIF orientation" in report.of("image-size-differs")[0].message


def test_copies_of_images(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    shutil.copy(root / "images" / "a.png", root / "images" / "b.png")
    image = np.array(Image.open(root / "images" / "a.png"))
    Image.fromarray(np.clip(image.astype(int) + 3, 0, 255).astype(np.uint8)).save(root / "images" / "c.png")
    report = check_dataset(root)
    assert [found.split for found in report.of("image-copy-other-split")] == ["val"]
    assert report.of("image-copy-other-split")[0].severity == "error"
    assert len(report.of("image-near-copy")) == 1
    assert len(report.of("image-near-copy-other-split")) == 1


def test_splits_that_disagree_about_classes(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    path = root / "annotations" / "val.json"
    path.write_text(path.read_text().replace('"ant"', '"wasp"'))
    assert "classes-differ" in codes(root)


def test_broken_file_is_a_finding_and_the_rest_is_checked(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    (root / "annotations" / "train.json").write_text('{"images":\n[')
    report = check_dataset(root)
    (found,) = report.of("broken-file")
    assert found.place.endswith("train.json:2") and found.message.startswith("not valid JSON")
    assert report.splits["val"].images == 1


def test_command(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "set")
    out = tmp_path / "check.json"
    result = CliRunner().invoke(app, ["check", str(root), "--json", str(out)])
    assert result.exit_code == 0, result.output
    assert "PASSED with warnings" in result.output
    (root / "images" / "a.png").unlink()
    result = CliRunner().invoke(app, ["check", str(root), "--json", str(out), "--split", "train"])
    assert result.exit_code == 1
    content = json.loads(out.read_text())
    assert content["verdict"] == "errors"
    assert content["counts"]["error"] == 1
    (missing,) = [found for found in content["findings"] if found["code"] == "image-missing"]
    assert (missing["split"], missing["item"]) == ("train", f"image {ord('a')}") and missing["line"] > 1


def test_embedded_dataset_has_no_faults(tmp_path: Path) -> None:
    arguments = ["make", "shapes", "--output", str(tmp_path / "shapes"), "--images", "8", "--size", "160"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    report = check_dataset(tmp_path / "shapes")
    assert report.count("error") == 0
    assert sum(count.images for count in report.splits.values()) == 8


@pytest.mark.shared_data
def test_known_faults_of_bccd(shared_data: Path) -> None:
    report = check_dataset(shared_data / "bccd" / "voc")
    zero = {(Path(found.file).stem, found.line) for found in report.of("box-zero-size")}
    assert zero == {("BloodImage_00343", 50), ("BloodImage_00338", 158)}
    near = {Path(found.file).stem[-5:] for found in report.of("box-near-duplicate")}
    assert near == {"00013", "00020", "00100", "00104", "00251", "00284", "00331", "00403"}
    (pair,) = report.of("image-near-copy-other-split")
    assert "00037" in pair.file and "00038" in pair.message
    assert report.count("error") == 2
    assert check_dataset(shared_data / "bccd").verdict == "warnings"
