"""What every model of the catalog, and every composition, must do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from cloverleaf.deploy.fuse import fuse
from cloverleaf.errors import ConfigError
from cloverleaf.models.catalog import create_model, list_models
from cloverleaf.models.detector import Detector
from cloverleaf.structures import AnchorOutput
from cloverleaf.weights import load, save

COMPOSED = [f"{backbone}+elan-pan+anchor" for backbone in ("elan-tiny", "elan", "csp-tiny")]
NAMES = [*list_models(), *COMPOSED]


def tiny(name: str, num_classes: int = 3, **head: object) -> Detector:
    torch.manual_seed(0)
    narrow = {"width": 0.25}
    return create_model(name, num_classes=num_classes, backbone=narrow, neck=narrow, head={**narrow, **head})


def with_random_statistics(model: Detector) -> Detector:
    """A fresh BatchNorm is nearly the identity and would hide mistakes in folding."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.running_mean, -0.5, 0.5), (module.running_var, 0.3, 2.0),
                                      (module.weight, 0.5, 1.5), (module.bias, -0.5, 0.5)):  # fmt: skip
                assert tensor is not None
                tensor.data.uniform_(low, high, generator=generator)
    return model


def size_hw(model: Detector) -> tuple[int, int]:
    return 2 * model.max_stride, 3 * model.max_stride


def images(model: Detector, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, *size_hw(model), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("num_classes", [1, 2, 7])
@pytest.mark.parametrize("name", NAMES)
def test_forward_backward_decode(name: str, num_classes: int) -> None:
    model = tiny(name, num_classes).train()
    raw = model(images(model))
    assert isinstance(raw, AnchorOutput)
    sum(level.square().sum() for level in (*raw.levels, *(raw.auxiliary or ()))).backward()
    idle = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not idle, f"no gradient: {idle}"
    model.eval()
    with torch.no_grad():
        evaluated = model(images(model))
        boxes, scores = model.decode(evaluated, size_hw(model))
    assert type(evaluated) is type(raw)
    height, width = size_hw(model)
    cells = [(height // s, width // s) for s in model.strides]
    shapes = [(2, model.anchors_px.shape[1], h, w, 5 + num_classes) for h, w in cells]
    assert [tuple(x.shape) for x in evaluated.levels] == [tuple(x.shape) for x in raw.levels] == shapes
    if raw.auxiliary is not None:
        assert evaluated.auxiliary is not None
        assert [tuple(x.shape) for x in evaluated.auxiliary] == [tuple(x.shape) for x in raw.auxiliary] == shapes
    count = sum(model.anchors_px.shape[1] * h * w for h, w in cells)
    assert boxes.shape == (2, count, 4) and scores.shape == (2, count, num_classes)
    assert boxes.dtype == scores.dtype == torch.float32
    assert (boxes[..., 2:] > boxes[..., :2]).all() and ((scores >= 0) & (scores <= 1)).all()
    if num_classes == 1:  # the class logit is not trained, so it must not count
        objectness = torch.cat([x[..., 4].flatten(1) for x in evaluated.levels], 1).sigmoid()
        torch.testing.assert_close(scores[..., 0], objectness)


@pytest.mark.parametrize("name", NAMES)
def test_fused_is_equal_and_the_original_untouched(name: str, tmp_path: Path) -> None:
    model = with_random_statistics(tiny(name)).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fused = fuse(model)
    assert model.training and not fused.training and model.spec.form == "training" and fused.spec.form == "fused"
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert not any("add." in key or "multiply." in key for key in fused.state_dict())
    save(fused, tmp_path / "fused.safetensors")
    loaded = load(tmp_path / "fused.safetensors")
    with torch.no_grad():
        expected, actual, again = model.eval()(images(model)), fused(images(model)), loaded(images(model))
    for ours, theirs, read in zip(expected.levels, actual.levels, again.levels, strict=True):
        assert (ours - theirs).abs().max() <= 1e-4 * max(1.0, float(ours.abs().max()))
        assert torch.equal(theirs, read)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_weights_round_trip(name: str, half: bool, tmp_path: Path) -> None:
    model = with_random_statistics(tiny(name))
    model.head.set_anchors(model.anchors_px * 1.1)
    path = tmp_path / "new folder" / "model.safetensors"
    save(model, path, half=half)
    assert [p.name for p in path.parent.iterdir()] == [path.name], "a temporary file is left"
    state = torch.get_rng_state()
    loaded = load(path)
    assert torch.equal(state, torch.get_rng_state()), "loading draws random numbers"
    assert loaded.spec == model.current_spec() and not loaded.training
    assert list(loaded.state_dict()) == list(model.state_dict())
    for key, value in loaded.state_dict().items():
        wanted = model.state_dict()[key]
        rounded = half and wanted.is_floating_point() and key != "head.anchors_px"
        assert value.dtype == wanted.dtype
        assert torch.equal(value, wanted.half().float() if rounded else wanted), key
    loaded.train()(images(model)).levels[0].sum().backward()  # weights from a file can be trained on


@pytest.mark.parametrize("name", NAMES)
def test_a_size_that_does_not_fit_is_refused(name: str) -> None:
    model = tiny(name)
    stride = model.max_stride
    for wrong in ((2 * stride, 2 * stride + 16), (stride + 1, stride), (stride // 2, stride), (0, stride)):
        with pytest.raises(ConfigError, match=f"stride {stride}"):
            model(torch.zeros(1, 3, *wrong))


@pytest.mark.parametrize("name", NAMES)
def test_traces_without_its_checks(name: str) -> None:
    """Exporters trace forward and decode; nothing in them may depend on values or be fixed to the batch size."""
    model = tiny(name).eval()

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.model.decode(self.model(x), size_hw(model))

    with torch.no_grad():
        program = torch.export.export(Whole(), (images(model, 2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
        actual = program.module()(images(model, 3))
        expected = Whole()(images(model, 3))
    torch.testing.assert_close(actual, expected)
