"""`cloverleaf info` and `cloverleaf models`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import cloverleaf
from cloverleaf.cli import info, models
from cloverleaf.errors import ConfigError, UnknownModelError
from cloverleaf.weights import WeightsMetadata

app = typer.Typer()
app.command("info")(info.info)
app.command("models")(models.models)


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False, env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    return result.output


def test_info_of_a_model() -> None:
    text = run("info", "yolov7-tiny")
    for expected in ("backbone.stage32", "512x20x20", "6,228,762", "6,227,101", "6,219,709", "13.70"):
        assert expected in text
    assert "implicit knowledge: 1,661 parameters, 2.7e-04 of all" in text
    values = json.loads(run("info", "yolov7-tiny", "--json", "--image-size", "320", "--num-classes", "3"))
    training = values["forms"]["training"]
    assert values["spec"]["num_classes"] == 3 and training["size_hw"] == [320, 320]
    assert sum(stage["params"] for stage in training["stages"]) == training["params"]
    assert sum(stage["flops"] for stage in training["stages"]) == training["flops"]


def test_info_of_a_weights_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    narrow = {"width": 0.125}
    model = cloverleaf.create_model("yolov7-tiny", num_classes=2, backbone=narrow, neck=narrow, head=narrow).fused()
    cloverleaf.save(model, path, metadata=WeightsMetadata(class_names=("cat", "dog"), metrics={"AP": 0.25}))
    text = run("info", str(path))
    assert "implicit knowledge" not in text
    assert "fused form" in text and "cat, dog" in text and "AP 0.25" in text
    with pytest.raises(ConfigError, match="2 classes"):
        run("info", str(path), "--num-classes", "3")


def test_models_lists_names_and_parts() -> None:
    text = run("models", "yolov7-tiny*")
    assert "6.23 M" in text and "13.70" in text
    backbones = " ".join(text.split()).partition("backbones: ")[2].partition("necks: ")[0].split(", ")
    assert {"csp-bep", "elan-tiny", "revcol", "revcol-nano"} < {*backbones} and backbones[-1].startswith("timm/NAME")
    with pytest.raises(UnknownModelError, match="yolov7-tiny"):
        run("models", "yolov7-tinny")
