"""A run that starts from weights: what is taken over, what starts anew, what is said."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

import cloverleaf
from cloverleaf.errors import CheckpointError, ConfigError
from cloverleaf.models.detector import Detector
from cloverleaf.recipes import api
from cloverleaf.training.config import ModelConfig, TrainConfig
from cloverleaf.training.starting_weights import build_model, model_options, provenance
from cloverleaf.weights import WeightsMetadata

NARROW = {"width": 0.125}
PARTS: dict[str, Any] = {"backbone": NARROW, "neck": NARROW, "head": NARROW}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    model = cloverleaf.create_model("yolov7-tiny", num_classes=80, **PARTS)
    model.head.set_anchors(model.anchors_px * 1.5)
    path = tmp_path / "start.safetensors"
    cloverleaf.save(model, path, metadata=WeightsMetadata(provenance="imported from yolov7-tiny.pt (...)"))
    return path


def build(weights: Path, classes: int, **model: Any) -> tuple[Detector, str]:
    """The model of a run and what is printed."""
    config = TrainConfig(model=ModelConfig(**{"weights": str(weights), **PARTS, **model}))
    index: Any = SimpleNamespace(names=[f"class {i}" for i in range(classes)])
    console = Console(record=True, width=1000, file=io.StringIO())
    return build_model(config, index, console), " ".join(console.export_text().split())


def test_another_number_of_classes_keeps_all_but_the_head(weights: Path) -> None:
    source = cloverleaf.load(weights).state_dict()
    model, said = build(weights, 3)
    assert "334 of 343 tensors taken over; freshly initialised (the weights have 80 classes, the data 3)" in said
    assert "head.levels.0.project.weight, head.levels.0.project.bias" in said and "and 5 more" in said
    anew = {key for key, value in model.state_dict().items() if value.shape != source[key].shape}
    assert len(anew) == 9
    assert all(key in anew or torch.equal(value, source[key]) for key, value in model.state_dict().items())


def test_same_classes_take_everything(weights: Path) -> None:
    model, said = build(weights, 80)
    assert said.endswith("343 of 343 tensors taken over")
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in cloverleaf.load(weights).state_dict().items())


def test_anchors_come_with_the_weights_unless_they_are_set(weights: Path) -> None:
    usual = cloverleaf.create_model("yolov7-tiny", **PARTS).anchors_px
    assert torch.equal(build(weights, 3)[0].anchors_px, usual * 1.5)
    model, said = build(weights, 80, head={**NARROW, "anchors_px": (usual * 2).tolist()})
    assert torch.equal(model.anchors_px, usual * 2) and "model.head.anchors_px is set" in said


def test_other_models_and_forms_are_named(weights: Path) -> None:
    _, said = build(weights, 80, name="yolov7-tiny-silu")
    assert said.endswith("343 of 343 tensors taken over")
    source = cloverleaf.load(weights)
    cloverleaf.save(source.deployed(), weights)
    _, said = build(weights, 80)
    assert "the weights are in deploy form" in said and "head.levels.0.add.value" in said
    cloverleaf.save(source.fused(), weights)
    with pytest.raises(CheckpointError, match="is in fused form and cannot be trained further"):
        build(weights, 80)
    wide = {"width": 0.25}
    with pytest.raises(CheckpointError, match="holds yolov7-tiny, and no weight has the same name and shape"):
        cloverleaf.save(source, weights)
        build(
            weights,
            3,
            name="yolov7-w6",
            backbone={},
            neck={},
            head={"anchors_px": [[[8 * i, 8 * i]] for i in range(1, 5)]},
        )
    assert build(weights, 80, backbone=wide, neck=wide, head=wide)[1].count("tensors taken over") == 1


def test_where_weights_come_from_is_passed_on(weights: Path, tmp_path: Path) -> None:
    config = TrainConfig(model=ModelConfig(weights=str(weights)))
    assert provenance(config) == "started from weights imported from yolov7-tiny.pt (...)"
    cloverleaf.save(cloverleaf.load(weights), tmp_path / "b", metadata=WeightsMetadata(provenance=provenance(config)))
    assert provenance(TrainConfig(model=ModelConfig(weights=str(tmp_path / "b")))) == provenance(config)
    assert provenance(TrainConfig()) == ""


def test_the_model_is_that_of_the_weights(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model_options(str(weights)) == {"name": "yolov7-tiny", **PARTS}
    deployed = tmp_path / "deployed.safetensors"
    cloverleaf.save(
        cloverleaf.create_model("yolov7-w6", num_classes=1, backbone=NARROW, neck=NARROW).deployed(), deployed
    )
    assert model_options(str(deployed)) == {"name": "yolov7-w6", "backbone": NARROW, "neck": NARROW}
    given: list[TrainConfig] = []
    monkeypatch.setattr("cloverleaf.training.fit.fit", lambda config, **_: given.append(config))
    options: dict[str, Any] = {"output": tmp_path / "run", "recipe": "small"}
    api.train(weights=deployed, **options)
    api.train(overrides=[f"model.weights={deployed}", "model.neck.width=0.5"], **options)
    api.train("yolov7", weights=deployed, **options)
    assert [config.model.name for config in given] == ["yolov7-w6", "yolov7-w6", "yolov7"]
    assert [config.model.neck for config in given] == [NARROW, {"width": 0.5}, {}]
    assert {config.model.weights for config in given} == {str(deployed)}


def test_anchors_of_an_anchor_branch_stay_with_the_model(tmp_path: Path) -> None:
    """They are in the spec of everything that is saved, so nothing is published without them."""
    anchors = [[[9, 9]], [[20, 20]], [[40, 50]]]
    small = {"backbone": {"width": 0.0625}, "neck": {"width": 0.25, "drop_path": 0.0}}
    path = tmp_path / "aided.safetensors"
    cloverleaf.save(
        cloverleaf.create_model("gold-yolo-n", num_classes=3, head={"aided": True, "anchors_px": anchors}, **small),
        path,
    )
    options = model_options(str(path))
    model, said = build(path, 3, **options)
    assert "anchors_px" in options["head"] and said.endswith(
        "freshly initialised (model.head.anchors_px is set): head.anchors_px"
    )
    assert model.head.anchors_px.tolist() == anchors and model.current_spec().head.anchors_px is not None
    cloverleaf.save(model, path)
    assert cloverleaf.load(path).head.anchors_px.tolist() == anchors
    usual = cloverleaf.create_model("gold-yolo-n", num_classes=3, head={"aided": True}, **small)
    assert usual.current_spec() == usual.spec
    with pytest.raises(ConfigError, match="has no anchor branch"):
        cloverleaf.create_model("gold-yolo-n", num_classes=3, head={"anchors_px": anchors}, **small)
