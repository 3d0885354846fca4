"""Detectors that start from the weights of a backbone."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import nn

import cloverleaf
from cloverleaf.backbones.timm import TimmSpec
from cloverleaf.errors import CheckpointError, ConfigError
from cloverleaf.models import parts
from cloverleaf.models.detector import Detector
from cloverleaf.training.config import ModelConfig, TrainConfig
from cloverleaf.training.starting_weights import build_model
from cloverleaf.weights.backbone import IMAGENET, PLAIN, BackboneMetadata, describe, load_backbone, save_backbone

NARROW = {"width": 0.125}
NAME = "elan-tiny+elan-pan+anchor"


def narrow(name: str = "elan-tiny", **options: Any) -> Any:
    return parts.override("backbone", parts.backbone_spec(name), {**NARROW, **options})


def stirred(module: nn.Module) -> nn.Module:
    """Every tensor at a value of its own, statistics and counters too."""
    for value in module.state_dict().values():
        value.copy_(torch.rand(value.shape) if value.is_floating_point() else torch.full_like(value, 7))
    return module


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "backbone.safetensors"
    facts = BackboneMetadata(backbone=parts.to_dict(narrow()), images=10, epochs=2)
    save_backbone(path, stirred(narrow().build()), facts)
    return path


def build(path: Path | str, name: str = NAME, **model: Any) -> tuple[Detector, str]:
    options = {"name": name, "backbone": NARROW, "neck": NARROW, "backbone_weights": str(path), **model}
    index: Any = SimpleNamespace(names=["a", "b"])
    console = Console(record=True, width=1000, file=io.StringIO())
    return build_model(TrainConfig(model=ModelConfig(**options)), index, console), " ".join(
        console.export_text().split()
    )


def test_every_tensor_of_the_same_backbone_is_taken(weights: Path) -> None:
    model, said = build(weights)
    source = load_backbone(weights).state
    assert all(torch.equal(value, source[key]) for key, value in model.backbone.state_dict().items())
    assert int(model.backbone.stem[0].norm.num_batches_tracked) == 7  # statistics come along
    assert said.endswith(f"pre-trained on 10 images for 2 epochs): {len(source)} of {len(source)} tensors taken over")


def test_a_detector_gives_its_backbone(tmp_path: Path) -> None:
    other = cloverleaf.create_model(NAME, num_classes=5, backbone=NARROW, neck={"width": 0.25})
    stirred(other.backbone)
    cloverleaf.save(other, tmp_path / "detector.safetensors")
    model, said = build(tmp_path / "detector.safetensors")
    given = other.backbone.state_dict()
    assert all(torch.equal(value, given[key]) for key, value in model.backbone.state_dict().items())
    assert f"(the backbone of {NAME})" in said


def test_what_differs_is_listed(weights: Path) -> None:
    model, said = build(weights, backbone={**NARROW, "depth": 3})
    assert "freshly initialised: stage4.chain.2.conv.weight" in said and "not used: stage" in said
    assert "the weights are of elan-tiny(width=0.125), the model has elan-tiny(width=0.125, depth=3)" in said
    assert torch.equal(model.backbone.stem[0].conv.weight, load_backbone(weights).state["stem.0.conv.weight"])


def test_another_normalisation_is_said(tmp_path: Path) -> None:
    facts = BackboneMetadata(backbone=parts.to_dict(narrow()), normalisation="rgb, ImageNet's mean and deviation")
    save_backbone(tmp_path / "b.safetensors", narrow().build(), facts)
    assert "has seen images as rgb, ImageNet's mean and deviation" in build(tmp_path / "b.safetensors")[1]


@pytest.mark.parametrize(
    ("shown_in_training", "itself_then", "itself_now", "differs"),
    [
        (PLAIN, False, False, False),
        (PLAIN, False, True, True),
        (PLAIN, True, True, False),
        (PLAIN, True, False, True),
        (IMAGENET, False, True, False),
        (IMAGENET, False, False, True),
    ],
)
def test_what_the_first_layer_sees_counts(
    tmp_path: Path, shown_in_training: str, itself_then: bool, itself_now: bool, differs: bool
) -> None:
    """A backbone may normalise its input itself, as those of the models on ResNet-50 do."""
    spec = TimmSpec(model="resnet18", normalize=itself_then)
    facts = BackboneMetadata(backbone=parts.to_dict(spec), normalisation=shown_in_training)
    save_backbone(tmp_path / "b.safetensors", spec.build(), facts)
    name, part = "timm/resnet18+fpn+point-rend", {"normalize": itself_now}
    said = build(tmp_path / "b.safetensors", name, backbone=part, neck={})[1]
    assert ("its first BatchNorm has to adapt" in said) == differs


def test_what_cannot_be_used_is_refused(weights: Path, tmp_path: Path) -> None:
    fits = r"holds elan-tiny\(width=0.125\), the model has csp-tiny, and no weight has the same name and shape"
    with pytest.raises(CheckpointError, match=fits):
        build(weights, "csp-tiny+elan-pan+anchor", backbone={})
    with pytest.raises(ConfigError, match="--weights and --backbone-weights together"):
        build(weights, weights=str(weights))
    with pytest.raises(CheckpointError, match=r"holds a backbone only.*--backbone-weights"):
        cloverleaf.load(weights)
    with pytest.raises(CheckpointError, match="no weights file"):
        build(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        build(tmp_path / "text.safetensors")
    fused = cloverleaf.create_model(NAME, backbone=NARROW, neck=NARROW).fused()
    cloverleaf.save(fused, tmp_path / "fused.safetensors")
    with pytest.raises(CheckpointError, match="fused form"):
        build(tmp_path / "fused.safetensors")


def test_backbones_are_described_by_what_is_special() -> None:
    assert describe(parts.backbone_spec("elan")) == "elan"
    assert describe(parts.backbone_spec("timm/resnet50")) == "timm/resnet50"
    assert describe(narrow(depth=3)) == "elan-tiny(width=0.125, depth=3)"
