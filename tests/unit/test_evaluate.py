"""Judging a model on a dataset: coordinates through the loader, classes by name, the command and its files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from cloverleaf.cli.val import val
from cloverleaf.data.config import DataConfig
from cloverleaf.data.source import open_index
from cloverleaf.errors import ConfigError, DataError
from cloverleaf.evaluation.average_precision import METRIC_NAMES
from cloverleaf.evaluation.config import EvalConfig
from cloverleaf.models.catalog import create_model
from cloverleaf.models.metadata import WeightsMetadata
from cloverleaf.predict.classes import match_classes
from cloverleaf.predict.evaluate import evaluate, evaluate_model
from cloverleaf.weights.format import save
from square_finder import SquareFinder

SIZES = ((97, 251), (320, 320), (481, 639), (640, 333), (60, 50), (1003, 1333), (200, 201))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO files with one white rectangle per picture, pictures of odd sizes, and an empty picture."""
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (height, width) in enumerate(SIZES, start=1):
        left, top = int(rng.integers(0, width // 3)), int(rng.integers(0, height // 3))
        right, bottom = int(rng.integers(width // 2, width)), int(rng.integers(height // 2, height))
        pixels = np.full((height, width, 3), 30, np.uint8)
        name = f"{number}.png"
        if number != 2:
            pixels[top:bottom, left:right] = 255
            box = [left, top, right - left, bottom - top]
            annotations.append({"id": len(annotations) + 1, "image_id": number * 3, "category_id": 17, "bbox": box,
                                "area": box[2] * box[3], "iscrowd": 0})  # fmt: skip
        images.append({"id": number * 3, "file_name": name, "height": height, "width": width})
        cv2.imwrite(str(folder / name), pixels)
    categories = [{"id": 4, "name": "ghost"}, {"id": 17, "name": "square"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "val.json").write_text(json.dumps(content))
    return folder / "val.json"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_perfect_detector_is_judged_perfect_whatever_the_sizes(dataset: Path, workers: int) -> None:
    model = SquareFinder()
    result = evaluate(model, dataset, image_size=640, batch_size=2, device="cpu", workers=workers)  # type: ignore[arg-type]
    square = next(row for row in result.metrics.per_class if row.name == "square")
    assert square.category_id == 17 and square.objects == len(SIZES) - 1
    assert square.ap50 == pytest.approx(1) and square.ap > 0.9
    assert (square.precision, square.recall) == pytest.approx((1, 1))
    ghost = result.metrics.per_class[0]
    assert ghost.name == "ghost" and np.isnan(ghost.ap)
    assert {row["category_id"] for row in result.rows} == {4, 17}
    assert result.speed.images == len(SIZES) and result.speed.inference > 0
    content = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert content["classes"][0]["AP"] is None and content["split"] == "val" and set(METRIC_NAMES) <= content.keys()


def test_evaluate_model_restores_the_mode_and_refuses_another_number_of_classes(dataset: Path) -> None:
    index = open_index(dataset, "val")
    model = SquareFinder().train()
    settings = DataConfig(image_size=320, batch_size=3, workers=0)
    result = evaluate_model(model, index, data=settings, device="cpu", category_ids=(17, 4))  # type: ignore[arg-type]
    assert model.training and result.metrics["AP50"] == pytest.approx(1)
    square_model = evaluate_model(model, index, data=replace(settings, rectangular_eval=False), device="cpu",
                                  category_ids=(17, 4), config=EvalConfig(confidence=0.5))  # type: ignore[arg-type]  # fmt: skip
    assert square_model.metrics["AP50"] == pytest.approx(1) and {r["category_id"] for r in square_model.rows} == {17}
    model.num_classes = 3
    with pytest.raises(DataError, match="3 classes"):
        evaluate_model(model, index, data=settings, device="cpu")  # type: ignore[arg-type]


def test_classes_are_matched_by_name() -> None:
    assert match_classes(("a", "b"), ("a", "b"), (7, 9)) == (7, 9)
    assert match_classes(("b", "a"), ("a", "b"), (7, 9)) == (9, 7)
    assert match_classes(None, ("a", "b"), (7, 9)) == (7, 9)
    assert match_classes(("c", "b", "d", "a"), ("a", "b"), (7, 9)) == (None, 9, None, 7)
    for names, says in (
        (("a", "c"), r"1 of 2 are missing \['b'\]"),
        (("a",), "missing"),
        (("a", "b", "a"), "several"),
    ):
        with pytest.raises(DataError, match=says):
            match_classes(names, ("a", "b"), (7, 9))


def test_classes_that_the_dataset_lacks_are_dropped(dataset: Path, weights: Path, tmp_path: Path) -> None:
    content = json.loads(dataset.read_text())
    content["categories"] = content["categories"][1:]  # no ghosts any more
    fewer = dataset.with_name("fewer-val.json")
    fewer.write_text(json.dumps(content))
    both = evaluate(SquareFinder(), dataset, image_size=320, device="cpu", workers=0)  # type: ignore[arg-type]
    square = evaluate(SquareFinder(), fewer, image_size=320, device="cpu", workers=0)  # type: ignore[arg-type]
    assert both.ignored_classes == () and square.ignored_classes == ("ghost",)
    assert {row["category_id"] for row in square.rows} == {17}
    assert square.metrics.values == both.metrics.values and square.metrics["AP50"] == pytest.approx(1)
    assert square.to_json()["ignored_classes"] == ["ghost"] and len(square.metrics.per_class) == 1
    result = run("-w", weights, "-d", fewer, "-o", tmp_path, "--workers", 0, "--json", "--conf", 0.9)
    assert json.loads(result.stdout)["ignored_classes"] == ["ghost"]
    assert "the weights know 2 classes, the dataset 1 of them" in result.stderr


def run(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(val)
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    metadata = WeightsMetadata(class_names=("square", "ghost"), image_size=96)
    save(create_model("yolov7-tiny", num_classes=2), path, metadata=metadata)
    return path


def test_command_prints_tables_and_writes_files(dataset: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("-w", weights, "-d", dataset, "-o", out, "--workers", 0, "--device", "cpu")
    assert result.exit_code == 0, result.output + str(result.exception)
    for text in ("AP50", "recall, large", "square", "ghost", "mean", "pre-process", "post-process"):
        assert text in result.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["image_size"] == 96 and metrics["objects"] == len(SIZES) - 1
    rows = json.loads((out / "predictions.json").read_text())
    assert len(rows) == metrics["detections"] > 0 and set(rows[0]) == {"image_id", "category_id", "bbox", "score"}
    for name in ("precision_recall.png", "confusion.png"):
        assert cv2.imread(str(out / name)) is not None
    as_json = run("-w", weights, "-d", dataset, "-o", out, "--workers", 0, "--json", "--image-size", 100, "--no-fuse")
    assert json.loads(as_json.stdout)["image_size"] == 128  # rounded up to the stride


def test_command_refuses_what_does_not_fit(dataset: Path, weights: Path, tmp_path: Path) -> None:
    for arguments, kind in (
        (("--split", "test"), DataError),
        (("--device", "abacus"), ConfigError),
        (("--precision", "fp8"), ConfigError),
        (("--conf", 1), ConfigError),
    ):
        result = run("-w", weights, "-d", dataset, "-o", tmp_path, *arguments)
        assert result.exit_code == 1 and isinstance(result.exception, kind)
    other = SquareFinder(("cat", "dog"))
    other.metadata = SimpleNamespace(class_names=("cat", "dog"), category_ids=None, image_size=96)
    with pytest.raises(DataError, match=r"2 of 2 are missing \['ghost', 'square'\]"):
        evaluate(other, dataset, device="cpu")  # type: ignore[arg-type]
