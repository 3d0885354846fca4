"""Every command and snippet of docs/classification.md runs, in order, on a few images with a narrow model."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

import cloverleaf
from class_folders import COLOURS, write_class_folders
from cloverleaf.errors import CloverleafError
from documented import run_commands, run_snippets, text_from

TEXT = text_from("classification.md", "Data")
QUICK = [
    *("--epochs", "2", "--image-size", "32", "--batch-size", "8", "--workers", "0", "--precision", "fp32"),
    *("--device", "cpu", "--deterministic", "--set", "model.backbone.channels=[4, 8, 8, 12]"),
    *("--set", "model.backbone.columns=1", "--set", "model.backbone.layers=[1, 1, 1, 1]", "--set", "runtime.threads=1"),
]


def narrow(words: list[str]) -> list[str]:
    """The command on fewer images and with a narrow model."""
    words = [word.replace("crops/test/star", "crops/val/red") for word in words]
    if words[:2] == ["data", "make"]:
        return [word.replace("300", "8").replace("160", "64") for word in words]
    if words[0] == "train":
        return [*words, *QUICK]
    if words[0] == "val":
        return [*(word.replace("test", "val") for word in words), "--workers", "0"]
    return words


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which all commands have run; the crops are exchanged for a set with all classes in each split."""
    place = tmp_path_factory.mktemp("classification")

    def exchange_crops(words: list[str]) -> None:
        if "class-folders" in words:
            assert any((place / "crops" / "train").rglob("*.png"))
            shutil.rmtree(place / "crops")
            write_class_folders(place / "crops")

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        run_commands(TEXT, narrow, exchange_crops)
    return place


def test_runs_are_complete(folder: Path) -> None:
    place = folder / "runs" / "classes"
    with (place / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    metrics = json.loads((place / "metrics.json").read_text())
    assert len(rows) == 2 and max(float(row["top1"]) for row in rows) == pytest.approx(metrics["top1"], abs=1e-5)
    assert metrics["task"] == "classify" and metrics["fitness"] == metrics["top1"] and metrics["images"] == 9
    report = (place / "report.html").read_text()
    assert "Top-1" in report and "What was taken for what" in report and "Mean accuracy" in report
    facts = cloverleaf.load(place / "weights" / "best.safetensors").metadata
    assert facts is not None and facts.task == "classify" and facts.class_names == tuple(COLOURS)
    for picture in ("predictions", "training", "train_batch_1", "labels", "class_confusion"):
        assert cv2.imread(str(place / "pictures" / f"{picture}.png")) is not None
    said = json.loads((place / "predictions.json").read_text())
    assert np.mean([row["right"] for row in said]) == pytest.approx(metrics["top1"])


def test_weights_and_exported_file_call_images_alike(folder: Path) -> None:
    content = json.loads((folder / "called" / "predictions.json").read_text())
    paths = [image["file_name"] for image in content["images"]]
    assert len(paths) == 3 and content["categories"][0]["name"] == "blue"
    assert cv2.imread(str(folder / "called" / "0.png")).shape[1] >= 320
    exported = cloverleaf.Predictor(folder / "classes.onnx").classify([folder / path for path in paths])
    for image, found in zip(content["images"], exported, strict=True):
        scores = {row["name"]: row["score"] for row in image["classes"]}
        assert found.probs == pytest.approx([scores[name] for name in COLOURS], abs=1e-4)


def test_an_interrupted_run_ends_as_the_unbroken_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mixed batches too: the weights are equal after the second epoch was done again."""
    monkeypatch.chdir(folder)
    place = folder / "runs" / "mixed"
    again = Path(shutil.copytree(place, tmp_path / "again"))
    shutil.copy(again / "checkpoint" / "previous.ckpt", again / "checkpoint" / "last.ckpt")
    (again / "report.html").unlink()
    cloverleaf.train(resume=True, output=again)
    whole, resumed = (cloverleaf.load(run / "weights" / "last.safetensors").state_dict() for run in (place, again))
    assert all(np.array_equal(whole[name].numpy(), resumed[name].numpy()) for name in whole)


def test_wrong_data_are_refused_before_the_run_folder_is_used(folder: Path, tmp_path: Path) -> None:
    for data, task, message in (("shapes", "classify", "no folder for each class"), ("crops", None, "no labelled obj")):
        with pytest.raises(CloverleafError, match=message):
            cloverleaf.train(data=folder / data, task=task, output=tmp_path / "run", overrides={"data": {"workers": 0}})
    assert not (tmp_path / "run").exists()


def test_snippets_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    Path("photo.jpg").write_bytes((folder / "crops" / "val" / "red" / "0.png").read_bytes())
    run_snippets(TEXT)
