"""Every command and snippet of docs/segmentation.md, from its section of use on, runs with narrow models."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import pytest
from faster_coco_eval.core import mask as coco_mask

import cloverleaf
from documented import run_commands, run_snippets, text_from

TEXT = text_from("segmentation.md", "Use")
QUICK = ["--epochs", "1", "--image-size", "64", "--batch-size", "4", "--workers", "0", "--precision", "fp32"]
NARROW = {
    "instance": ["csp-tiny+fpn+mask-rcnn", "representation=16", "mask_width=8", "mask_layers=1", "box_samples=16",
                 "train_proposals=20", "proposals=20"],
    "semantic": ["csp-tiny+fpn+point-rend", "coarse_width=8", "point_width=8"],
}  # fmt: skip


def narrow(words: list[str]) -> list[str]:
    """The command on fewer images and with a narrow model."""
    if words[0] == "data":
        return [word.replace("400", "24").replace("160", "64") for word in words]
    if words[0] == "predict":
        return ["0.06" if word == "0.5" else word for word in words]
    if words[0] != "train":
        return [*words, "--workers", "0"]
    model, *options = NARROW[words[words.index("--task") + 1]]
    settings = ["model.backbone.width=0.125", "model.neck.width=8", *(f"model.head.{option}" for option in options)]
    return [*words, *QUICK, "--model", model, *(part for option in settings for part in ("--set", option))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all commands have run."""
    place = tmp_path_factory.mktemp("segmentation")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run_commands(TEXT, narrow, lambda words: None)
    return place


@pytest.mark.parametrize(
    ("run", "task", "headline", "names"),
    [("masks", "instance", "mask_AP", 16), ("pixels", "semantic", "mIoU", 17)],
)
def test_runs_are_complete(folder: Path, run: str, task: str, headline: str, names: int) -> None:
    place = folder / "runs" / run
    with (place / "results.csv").open() as file:
        [row] = csv.DictReader(file)
    metrics = json.loads((place / "metrics.json").read_text())
    assert float(row[headline]) == pytest.approx(metrics[headline], abs=1e-5) and metrics["task"] == task
    assert metrics["fitness"] == metrics[headline] and headline.split("_")[0] in (place / "report.html").read_text()
    facts = cloverleaf.load(place / "weights" / "best.safetensors").metadata
    assert facts is not None and facts.task == task and len(facts.class_names) == names
    assert facts.metrics[headline] == metrics[headline]
    for picture in ("predictions", "training", "train_batch_1", "labels"):
        assert cv2.imread(str(place / "pictures" / f"{picture}.png")) is not None


def test_a_run_that_was_stopped_before_its_report_is_finished(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    place = folder / "runs" / "pixels"
    before = (place / "metrics.json").read_text()
    (place / "report.html").unlink()
    cloverleaf.train(resume=True, output=place)
    after, before = json.loads((place / "metrics.json").read_text()), json.loads(before)
    assert (place / "report.html").is_file() and after["mIoU"] == before["mIoU"] and after["best_epoch"] == 1


def test_what_was_found_is_in_original_pixels(folder: Path) -> None:
    content = json.loads((folder / "found" / "predictions.json").read_text())
    sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
    for row in content["detections"]:
        assert row["segmentation"]["size"] == sizes[row["image_id"]]
        assert coco_mask.decode(row["segmentation"]).shape == tuple(sizes[row["image_id"]])
    content = json.loads((folder / "coloured" / "predictions.json").read_text())
    assert len(content["images"]) == 24 and content["categories"][0]["name"] == "background"
    for image in content["images"][:3]:
        labels = cv2.imread(str(folder / "coloured" / image["labels"]), cv2.IMREAD_UNCHANGED)
        assert labels.shape == (image["height"], image["width"]) and labels.max() <= 16
    assert (folder / "found" / "000001.jpg").is_file() and (folder / "coloured" / "000001.jpg").is_file()


def test_snippets_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("photo.jpg").write_bytes((folder / "shapes" / "images" / "000001.jpg").read_bytes())
    run_snippets(TEXT)
