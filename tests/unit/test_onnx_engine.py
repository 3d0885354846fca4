"""Exported files predict and are judged like the weights that they were made from."""

from __future__ import annotations

import json
import logging
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from cloverleaf.cli.info import info
from cloverleaf.cli.main import app as cli
from cloverleaf.cli.predict import predict
from cloverleaf.cli.val import val
from cloverleaf.data.config import DataConfig
from cloverleaf.data.source import open_index
from cloverleaf.deploy.export import export
from cloverleaf.errors import CheckpointError, ConfigError
from cloverleaf.evaluation.config import EvalConfig
from cloverleaf.predict.engine import open_engine
from cloverleaf.predict.evaluate import EvaluationResult, evaluate, evaluate_model
from cloverleaf.predict.predictor import Predictor
from cloverleaf.structures import Detections
from cloverleaf.weights.format import load
from narrow_weights import traced_once, write_narrow_weights

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)

NAMES = ("apple", "pear", "plum")
PAGE = Path(__file__).parents[2] / "docs" / "export.md"


@pytest.fixture(scope="module", autouse=True)
def trace_once() -> Iterator[None]:
    with traced_once():
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_narrow_weights(tmp_path_factory.mktemp("weights") / "narrow.safetensors", NAMES)


@pytest.fixture(scope="module")
def open_file(weights: Path) -> Path:
    """Any number and size of images, every prediction."""
    result = export(weights, weights.with_name("open.onnx"), dynamic=True)
    assert result.parity.shapes == ((1, 3, 96, 96), (3, 3, 32, 64))
    return result.path


@pytest.fixture(scope="module")
def pair_file(weights: Path) -> Path:
    """Two images of 96 x 96 at a time, suppression inside."""
    target = weights.with_name("pair.onnx")
    return export(weights, target, batch_size=2, nms=True, confidence=0.3, max_detections=40).path


def picture(seed: int, height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


@pytest.fixture(scope="module")
def dataset(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures whose truth is what the weights find in them, so that the metrics are far from zero."""
    folder = tmp_path_factory.mktemp("data")
    predictor = Predictor(weights, confidence=0.3, device="cpu", max_detections=15)
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    for number, size_hw in enumerate(((96, 96), (64, 96), (96, 48), (120, 160), (80, 80)), start=1):
        pixels = picture(number, *size_hw)
        cv2.imwrite(str(folder / f"{number}.png"), pixels[..., ::-1])
        images.append({"id": number, "file_name": f"{number}.png", "height": size_hw[0], "width": size_hw[1]})
        for row in predictor(pixels).to_coco(number):
            area = row["bbox"][2] * row["bbox"][3]
            objects.append({**row, "id": len(objects) + 1, "area": area, "iscrowd": 0})
    categories = [{"id": key, "name": name} for key, name in zip((5, 6, 9), NAMES)]
    content = {"images": images, "annotations": objects, "categories": categories}
    (folder / "val.json").write_text(json.dumps(content))
    return folder / "val.json"


def same(a: Detections, b: Detections) -> None:
    np.testing.assert_allclose(a.xyxy, b.xyxy, atol=1e-2)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert (a.class_names, a.category_ids, a.image_hw) == (b.class_names, b.category_ids, b.image_hw)


def same_result(a: EvaluationResult, b: EvaluationResult) -> None:
    assert a.config == b.config and a.image_size == b.image_size and len(a.rows) == len(b.rows) > 100
    assert a.metrics["AP"] > 0.1
    for name, value in a.metrics.values.items():
        assert b.metrics[name] == pytest.approx(value, abs=1e-4, nan_ok=True), name


def test_prediction_is_that_of_the_weights(weights: Path, open_file: Path, pair_file: Path) -> None:
    free, like_file = (Predictor(path, device="cpu", confidence=0.1) for path in (weights, open_file))
    images = [picture(seed, *size) for seed, size in enumerate(((96, 96), (60, 90), (200, 80), (60, 90), (96, 96)))]
    for expected, found in zip(free(images), like_file(images), strict=True):
        assert len(found) > 5
        same(expected, found)
    squares = [picture(seed, 96, 96) for seed in range(5)]  # an odd number, for a file that takes pairs
    inside = Predictor(pair_file, batch_size=4)
    chosen = {"confidence": 0.3, "max_detections": 40, "device": "cpu"}
    for expected, found in zip(Predictor(weights, **chosen)(squares), inside(squares), strict=True):
        assert len(found) > 5
        same(expected, found)
    stricter = {"confidence": 0.5, "max_detections": 7}  # exact, too
    for expected, found in zip(Predictor(weights, **stricter)(squares), Predictor(pair_file, **stricter)(squares)):
        same(expected, found)
    for whole, found in zip(inside(squares), Predictor(pair_file, classes=["pear"])(squares), strict=True):
        assert len(found) > 0
        same(whole[whole.labels == 1], found)


def test_a_file_of_one_size_pads_every_image_to_its_square(pair_file: Path) -> None:
    predictor = Predictor(pair_file)
    found = predictor(picture(3, 60, 200))
    assert found.image_hw == (60, 200) and (found.xyxy[:, 2] <= 200).all() and len(found) > 0
    assert predictor.image_size == 96 and predictor.engine.info.fixed
    assert not len(predictor(np.zeros((5, 5, 3), np.uint8))[:0])


def test_evaluation_is_that_of_the_weights(weights: Path, open_file: Path, pair_file: Path, dataset: Path) -> None:
    options = {"device": "cpu", "workers": 0, "batch_size": 2}
    same_result(evaluate(weights, dataset, **options), evaluate(open_file, dataset, **options))
    same_result(
        evaluate(weights, dataset, image_size=64, **options), evaluate(open_file, dataset, image_size=64, **options)
    )
    config = EvalConfig(confidence=0.3, iou=0.45, multi_label=False, max_detections=40)
    square = DataConfig(image_size=96, batch_size=2, workers=0, rectangular_eval=False)
    expected = evaluate_model(load(weights), open_index(dataset, "val"), data=square, config=config, device="cpu")
    same_result(expected, evaluate(pair_file, dataset, device="cpu", workers=0, batch_size=3))


def test_what_a_file_cannot_change_any_more_is_refused(
    open_file: Path, pair_file: Path, dataset: Path, tmp_path: Path
) -> None:
    for settings, says in (
        ({"confidence": 0.2}, r"confidence 0.2 \(at least 0.3\)"),
        ({"iou": 0.5}, r"iou 0.5 \(only 0.45\)"),
        ({"max_detections": 41}, r"41 detections \(at most 40\)"),
        ({"class_agnostic": True}, "class-agnostic"),
        ({"image_size": 64}, "96 x 96 only"),
        ({"precision": "bf16"}, "precision bf16"),
        ({"fuse": False}, "unfused"),
        ({"device": "abacus"}, "cannot run on abacus"),
    ):
        with pytest.raises(ConfigError, match=says):
            Predictor(pair_file, **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="several classes for one box"):
        evaluate(pair_file, dataset, config=EvalConfig(confidence=0.4, iou=0.45, max_detections=10), workers=0)
    with pytest.raises(CheckpointError, match="no such file"):
        Predictor(tmp_path / "absent.onnx")
    engine = open_engine(open_file)
    assert open_engine(engine) is engine and engine.info.class_names == NAMES


def test_a_size_that_is_rounded_up_is_told(weights: Path, open_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in (weights, open_file):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "cloverleaf"):
            assert Predictor(path, image_size=96).image_size == 96 and not caplog.messages
            assert Predictor(path, image_size=100).image_size == 128
        assert caplog.messages == ["image size 100 is no multiple of the stride 32: 128 is used"]


def run(verb: Any, *arguments: object) -> Any:
    app = typer.Typer()
    app.command()(verb)
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_commands(weights: Path, pair_file: Path, open_file: Path, dataset: Path, tmp_path: Path) -> None:
    common = ("-d", dataset, "-o", tmp_path / "val", "--workers", 0, "--json")
    judged = run(val, "-w", pair_file, *common)
    assert judged.exit_code == 0, judged.output + str(judged.exception)
    protocol = json.loads(judged.stdout)["protocol"]
    thresholds = {"confidence": 0.3, "iou": 0.45, "max_detections": 40}
    assert protocol == {**thresholds, "multi_label": False, "ap_detections": 100}
    assert "judged at its own thresholds" in judged.stderr and "padded to that square" in judged.stderr
    assert json.loads(run(val, "-w", pair_file, *common, "--conf", 0.5).stdout)["protocol"]["confidence"] == 0.5
    refused = run(val, "-w", pair_file, *common, "--conf", 0.1)
    assert isinstance(refused.exception, ConfigError) and "at least 0.3" in str(refused.exception)
    whole = run(val, "-w", open_file, *common)
    assert json.loads(whole.stdout)["protocol"]["confidence"] == 0.001 and "note" not in whole.stderr

    found = [run(predict, dataset.parent, "-w", path, "--no-save") for path in (weights, open_file)]
    assert [item.exit_code for item in found] == [0, 0]
    counts = [[line.split(",")[0] for line in item.stdout.splitlines()] for item in found]
    assert counts[0] == counts[1] and any("apple" in line or "pear" in line for line in counts[0])

    shown = run(info, pair_file)
    assert "2 x 3 x 96 x 96" in shown.output and "apple, pear, plum" in shown.output and "CC0" in shown.output
    assert json.loads(run(info, open_file, "--json").output)["shapes"]["images"] == ["batch", 3, "height", "width"]
    assert isinstance(run(info, open_file, "--num-classes", 3).exception, ConfigError)


def test_the_page_about_export_does_what_it_says(
    weights: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command and every snippet of docs/export.md, in a folder with the files that it names."""
    shutil.copy(weights, tmp_path / "best.safetensors")
    cv2.imwrite(str(tmp_path / "photo.jpg"), picture(1, 96, 96))
    (tmp_path / "images").mkdir()
    for image in dataset.parent.glob("*.png"):
        shutil.copy(image, tmp_path / "images")
    shutil.copy(dataset, tmp_path / "val.json")
    (tmp_path / "data.yaml").write_text(f"path: .\nval: val.json\nnames: [{', '.join(NAMES)}]\n")
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    lines = "\n".join(re.findall(r"^```bash\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith("cloverleaf")]
    assert {words[1] for words in commands} == {"export", "info", "predict", "val"}
    for words in commands:
        if words[1] == "val":
            words += ["--workers", "0"]
        result = CliRunner().invoke(cli, words[1:])
        assert result.exit_code == 0, f"{words}: {result.output} {result.exception}"
    (ours,), (plain,) = (
        re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) for kind in ("python", "py")
    )
    exec(ours, {})
    assert (tmp_path / "best.onnx").is_file() and len(capsys.readouterr().out.split()) == 2
    ran = subprocess.run([sys.executable, "-c", plain], capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stdout.split()[0] in NAMES, ran.stdout + ran.stderr
