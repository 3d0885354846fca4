"""What every classifier of the catalog must do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cloverleaf.deploy.fuse import fuse
from cloverleaf.errors import ConfigError
from cloverleaf.models.catalog import MODELS, create_model, empty_detector, find_spec, list_models
from cloverleaf.models.detector import Detector
from cloverleaf.structures import ClassifyOutput
from cloverleaf.weights import load, save

NAMES = [name for name in list_models() if MODELS[name].spec.task == "classify"]
NARROW = {"channels": [4, 6, 8, 10], "columns": 2, "drop_path": 0.0}


def narrow(name: str) -> Detector:
    """The model with few channels and columns, in whose fresh blocks something happens."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, backbone=NARROW)
    for key, parameter in model.named_parameters():
        if key.endswith("layer_scale"):
            nn.init.constant_(parameter, 0.5)
    return model


def images(batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, 64, 96, generator=torch.Generator().manual_seed(2))


def test_published_classes_and_sizes() -> None:
    assert {f"revcol-{size}" for size in ("tiny", "small", "base", "large", "xlarge", "huge", "nano")} <= set(NAMES)
    assert {MODELS[name].spec.num_classes for name in NAMES} == {1000}
    assert {MODELS[name].image_size for name in NAMES} == {224, 640}
    assert create_model("revcol-pico", backbone=NARROW).num_classes == 1000
    assert create_model("revcol-pico+none+classify", backbone=NARROW).num_classes == 80


@pytest.mark.parametrize("name", NAMES)
def test_forward_backward_fuse_and_weights(name: str, tmp_path: Path) -> None:
    model = narrow(name).train()
    raw = model(images())
    assert isinstance(raw, ClassifyOutput) and raw.logits.shape == (2, 5)
    raw.logits.square().sum().backward()
    idle = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle, f"no gradient: {idle}"
    fused = fuse(model)
    assert fused.spec.form == "fused" and model.training
    save(model, tmp_path / "plain.safetensors")
    save(fused, tmp_path / "fused.safetensors")
    with torch.no_grad():
        expected = model.eval()(images()).logits
        for other in (fused, load(tmp_path / "plain.safetensors"), load(tmp_path / "fused.safetensors")):
            torch.testing.assert_close(other(images()).logits, expected, rtol=1e-4, atol=1e-5)
        assert load(tmp_path / "plain.safetensors").spec == model.spec
    with pytest.raises(ConfigError, match="stride 32"):
        model(torch.zeros(1, 3, 64, 48))
    with pytest.raises(ConfigError, match="not give boxes"):
        model.decode(raw, (64, 96))


def test_traces_without_its_checks() -> None:
    model = narrow("revcol-pico").eval()

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.model(x).logits
            return logits

    with torch.no_grad():
        program = torch.export.export(Whole(), (images(2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.testing.assert_close(program.module()(images(3)), model(images(3)).logits)


@pytest.mark.parametrize("name", NAMES)
def test_structure_alone_takes_no_random_numbers(name: str) -> None:
    """And no memory: those of the largest have billions of parameters."""
    state = torch.get_rng_state()
    assert empty_detector(find_spec(name)).num_classes == 1000
    assert torch.equal(state, torch.get_rng_state())
