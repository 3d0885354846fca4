"""`cloverleaf train` and what follows it, on a few small scenes."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import cloverleaf as cl
from smoke.conftest import QUICK, cloverleaf


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "quick"
    cloverleaf(
        "train", "--model", "yolov7-tiny", "--data", shapes, "--epochs", "2", "--image-size", "96",
        "--batch-size", "8", "--output", folder, "--seed", "1", *QUICK,
    )  # fmt: skip
    return folder


def test_run_folder_is_complete(run: Path) -> None:
    expected = [
        "config.yaml", "results.csv", "metrics.json", "predictions.json", "report.html",
        "weights/best.safetensors", "weights/last.safetensors", "checkpoint/last.ckpt",
        "pictures/labels.png", "pictures/training.png", "pictures/precision_recall.png", "pictures/confusion.png",
        "pictures/confidence.png", "pictures/predictions.png", "pictures/train_batch_1.png",
    ]  # fmt: skip
    assert [name for name in expected if not (run / name).stat().st_size] == []
    assert list((run / "tensorboard").glob("events.out.tfevents.*"))
    assert not list(run.rglob("*.tmp")) and not (run / "weights" / "swa.safetensors").exists()
    with (run / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row[f"train/{item}"]) > 0 for row in rows for item in ("box", "obj", "cls"))
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["images"] == 4 and 0 <= metrics["AP"] <= 1 and "weights" not in metrics
    assert "recipe_reason" in metrics["run"] and "32 training images" in metrics["run"]["recipe_reason"]


def test_weights_need_nothing_else(run: Path) -> None:
    model = cl.load(run / "weights" / "best.safetensors")
    assert model.metadata is not None and len(model.metadata.class_names) == model.num_classes
    assert model.metadata.image_size == 96 and model.metadata.metrics["epoch"] in (1, 2)


def test_config_repeats_the_run(run: Path, shapes: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    cloverleaf("train", "--config", run / "config.yaml", "--output", again)
    first, second = (load_file(folder / "weights" / "last.safetensors") for folder in (run, again))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def test_val_and_predict(run: Path, shapes: Path, tmp_path: Path) -> None:
    weights = run / "weights" / "best.safetensors"
    cloverleaf("val", "--weights", weights, "--data", shapes, "--split", "test", "--output", tmp_path / "val")
    assert json.loads((tmp_path / "val" / "metrics.json").read_text())["split"] == "test"
    cloverleaf("predict", "--weights", weights, shapes / "images", "--output", tmp_path / "out", "--save-json")
    assert list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--data", "nowhere"], 1, ["nowhere"]),
        (["--data", "{shapes}", "--set", "optimizer.lrr=1"], 2, ["optimizer.lrr", "optimizer.lr"]),
        (["--data", "{shapes}", "--set", "optimizer.lr=-1"], 2, ["optimizer.lr", "greater than 0"]),
        (["--data", "{shapes}", "--recipe", "yolo7-tiny"], 2, ["yolov7-tiny"]),
        (["--data", "{shapes}", "--model", "yolov7-tyni"], 2, ["yolov7-tiny"]),
        (["--data", "{shapes}", "--device", "cuda:9"], 2, ["cuda"]),
        (["--data", "{shapes}", "--image-size", "100"], 2, ["100", "96", "128"]),
        (["--data", "{shapes}", "--output", "{run}"], 2, ["in use", "--resume"]),
        (["--resume", "--output", "{run}", "--epochs", "9"], 2, ["epochs"]),
        (["--resume", "--output", "{run}", "--recipe", "small"], 2, ["--recipe"]),
        (["--resume", "--output", "{empty}"], 2, ["config.yaml"]),
    ],
)
def test_bad_input(run: Path, shapes: Path, tmp_path: Path, arguments: list[str], code: int, words: list[str]) -> None:
    places = {"{shapes}": str(shapes), "{run}": str(run), "{empty}": str(tmp_path)}
    given = [places.get(argument, argument) for argument in arguments]
    if "--output" not in given:
        given += ["--output", str(tmp_path / "out")]
    result = cloverleaf("train", *given, check=False)
    assert result.returncode == code, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    said = " ".join(result.stderr.split())
    assert [word for word in words if word not in said] == []
    assert not (tmp_path / "out").exists(), "a refused run has used up its folder"


@pytest.mark.parametrize(
    "extra",
    [
        # The workers start before the epoch is known; the mean of epochs 2 to 4 spans the interruption.
        ["multi_scale=true", "data.workers=2", "swa.enabled=true", "swa.start=0.3", "swa.lr_factor=0.5"],
        # Gradients still wait for their step when an epoch ends, and the level weights adapt inside the warm-up; there
        # is a group of parameters for each layer.
        [
            "schedule.nominal_batch=20",
            "schedule.warmup_epochs=0.5",
            "loss.autobalance=true",
            "optimizer.clip_norm=5",
            "optimizer.layer_decay=0.9",
        ],
    ],
    ids=["multi_scale", "accumulating"],
)
def test_killed_and_resumed_equals_unbroken(shapes: Path, tmp_path: Path, extra: list[str]) -> None:
    """Four epochs at once, and two epochs, kill -9 in the third, resume: the same weights, bit for bit."""
    options = [
        "train", "--model", "yolov7-tiny", "--data", str(shapes), "--epochs", "4", "--image-size", "64",
        "--batch-size", "4", "--deterministic", *(part for value in extra for part in ("--set", value)), *QUICK,
    ]  # fmt: skip
    cloverleaf(*options, "--output", tmp_path / "whole")
    broken = tmp_path / "broken"
    command = [sys.executable, "-m", "cloverleaf", *options, "--output", str(broken)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    checkpoints = [broken / "checkpoint" / name for name in ("previous.ckpt", "last.ckpt")]
    while not all(path.exists() for path in checkpoints) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert _epochs(broken) in (2, 3), "the run was not killed in time"
    # The newest checkpoint is cut off as a power failure would: the one before must be used, and said so.
    last = broken / "checkpoint" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    said = cloverleaf("train", "--resume", "--output", broken).stdout
    assert "damaged" in said and "previous.ckpt" in said
    assert yaml.safe_load((broken / "config.yaml").read_text())["epochs"] == 4
    assert (broken / "weights" / "swa.safetensors").exists() == ("swa.enabled=true" in extra)
    names = sorted(path.name for path in (broken / "weights").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "whole" / "weights").iterdir())
    for name in names:
        whole = load_file(tmp_path / "whole" / "weights" / name)
        resumed = load_file(broken / "weights" / name)
        for key, value in whole.items():
            assert torch.equal(value, resumed[key]), f"{name}: {key}"
    assert _epochs(broken) == 4


def test_interrupted_run_says_how_to_go_on(shapes: Path, tmp_path: Path) -> None:
    options = [
        "train", "--data", str(shapes), "--epochs", "500", "--image-size", "64", "--batch-size", "8",
        "--set", "evaluation.interval=500", "--output", str(tmp_path / "run"), *QUICK,
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "cloverleaf", *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a runner in the background ignores it
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while _epochs(tmp_path / "run") < 1 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "--resume" in said and "Traceback" not in said


def test_complete_run_is_not_repeated(run: Path) -> None:
    before = (run / "report.html").stat().st_mtime_ns
    assert "is complete" in cloverleaf("train", "--resume", "--output", run).stdout
    assert (run / "report.html").stat().st_mtime_ns == before


def _epochs(folder: Path) -> int:
    path = folder / "results.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0
