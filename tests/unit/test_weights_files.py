"""Damaged, foreign and mismatched weights are refused with reasons; a failed save leaves the old file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import cloverleaf
from cloverleaf import atomic
from cloverleaf.errors import CheckpointError, ConfigError, UnknownModelError
from cloverleaf.models.detector import Detector
from cloverleaf.weights import WeightsMetadata, export_state_dict, import_state_dict, load, read_metadata, save


@pytest.fixture(scope="module")
def model() -> Detector:
    narrow = {"width": 0.125}
    return cloverleaf.create_model("yolov7-tiny", num_classes=2, backbone=narrow, neck=narrow, head=narrow)


@pytest.fixture
def path(model: Detector, tmp_path: Path) -> Path:
    facts = WeightsMetadata(class_names=("cat", "dog"), category_ids=(17, 18), image_size=320, metrics={"AP": 0.5})
    save(model, tmp_path / "model.safetensors", metadata=facts)
    return tmp_path / "model.safetensors"


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> None:
    """Change the tensors and the metadata of a file in place."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        facts = json.loads(file.metadata()["cloverleaf"])
    change(tensors, facts)
    save_file(tensors, path, {"cloverleaf": json.dumps(facts)})


def test_metadata_comes_back(path: Path) -> None:
    facts = load(path).metadata
    assert facts is not None and facts == read_metadata(path)
    assert (facts.model, facts.class_names, facts.category_ids) == ("yolov7-tiny", ("cat", "dog"), (17, 18))
    assert (facts.image_size, facts.metrics, facts.task) == (320, {"AP": 0.5}, "detect")
    assert facts.cloverleaf_version == cloverleaf.__version__


def test_metadata_must_fit_the_model(model: Detector, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 class names"):
        save(model, tmp_path / "x", metadata=WeightsMetadata(class_names=("cat",)))


@pytest.mark.parametrize("keep", [0, 5, 200, 0.5, 0.999])
def test_truncated_file(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match="truncated"):
        load(path)


def test_absent_and_foreign_files(path: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match="no such file"):
        load(tmp_path)
    path.write_bytes(b"PK\x03\x04" + bytes(4000))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        load(path)
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="not written by cloverleaf"):
        load(path)


CHANGES: list[tuple[str, Callable[[dict[str, torch.Tensor], dict[str, Any]], Any]]] = [
    ("1 missing: head.levels.0.project.bias", lambda t, _: t.pop("head.levels.0.project.bias")),
    ("1 left over: stray", lambda t, _: t.update(stray=torch.zeros(1))),
    (r"1 mis-shaped: head.anchors_px \(1,\)", lambda t, _: t.update({"head.anchors_px": torch.zeros(1)})),
    ("schema version 99", lambda _, f: f.update(schema_version=99)),
    ("schema version None", lambda _, f: f.pop("schema_version")),
    ("unknown metadata colour", lambda _, f: f.update(colour="red")),
    ("image_size", lambda _, f: f.update(image_size="large")),
    ("no neck 'sideways'", lambda _, f: f["spec"]["neck"].update(type="sideways")),
    ("num_classes", lambda _, f: f["spec"].update(num_classes=-1)),
]


@pytest.mark.parametrize(("says", "change"), CHANGES, ids=[says for says, _ in CHANGES])
def test_inconsistent_file(path: Path, says: str, change: Callable[..., Any]) -> None:
    rewrite(path, change)
    with pytest.raises(CheckpointError, match=says):
        load(path)


def test_failed_save_keeps_the_old_file(model: Detector, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full_disk(_descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        save(model, path)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return export_state_dict(cloverleaf.create_model("yolov7-tiny", num_classes=4))


def test_import_reads_the_number_of_classes_and_half_precision(published: dict[str, torch.Tensor]) -> None:
    halved = {k: v.half() if v.is_floating_point() else v for k, v in published.items()}
    model = import_state_dict("yolov7-tiny", halved)
    assert model.num_classes == 4 and {p.dtype for p in model.parameters()} == {torch.float32}
    assert torch.equal(model.backbone.stem[0].conv.weight, halved["model.0.conv.weight"].float())
    without_counters = {k: v for k, v in published.items() if not k.endswith("num_batches_tracked")}
    assert import_state_dict("yolov7-tiny", without_counters, num_classes=4).spec.form == "training"


def test_import_lists_what_does_not_fit(published: dict[str, torch.Tensor]) -> None:
    broken = {**published, "model.78.conv.weight": torch.zeros(1), "model.5.bn.bias": torch.zeros(7)}
    del broken["model.77.im.2.implicit"]
    with pytest.raises(CheckpointError) as caught:
        import_state_dict("yolov7-tiny", broken)
    text = str(caught.value)
    assert "1 missing: model.77.im.2.implicit" in text and "1 left over: model.78.conv.weight" in text
    assert "1 mis-shaped: model.5.bn.bias (7,) instead of (32,)" in text
    with pytest.raises(CheckpointError, match="4 classes, not 80"):
        import_state_dict("yolov7-tiny", published, num_classes=80)
    with pytest.raises(CheckpointError, match="disagree"):
        import_state_dict("yolov7-tiny", {**published, "model.77.anchors": torch.ones(3, 3, 2)})
    with pytest.raises(CheckpointError, match="missing"):
        import_state_dict("yolov7-tiny", {})
    with pytest.raises(UnknownModelError):
        import_state_dict("yolov7-huge", published)
    with pytest.raises(CheckpointError, match="no published checkpoint names"):
        import_state_dict("elan-tiny+elan-pan+anchor", published)
